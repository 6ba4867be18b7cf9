"""A run's folder: what is written, resumed, compared and drawn."""
