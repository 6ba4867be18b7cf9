"""Learning without data: generators, images made pixel by pixel, and drawn shapes."""
