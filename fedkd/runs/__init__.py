"""A run's folder and nothing else: written, locked, checked, resumed, read."""
