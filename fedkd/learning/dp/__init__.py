"""Learning with differential privacy: DP-SGD, what it cannot protect, and its plan."""
