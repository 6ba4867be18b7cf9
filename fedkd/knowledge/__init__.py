"""What is passed on: pure loss functions, unreduced where the formula is per sample."""
