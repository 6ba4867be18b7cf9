"""Asking a run's student: what it is given, and how what it answers is said."""
