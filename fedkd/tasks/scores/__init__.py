"""How good answers are: counters that may be added, and what they say."""
