"""Published sets of images, read from the files that their authors give away."""
