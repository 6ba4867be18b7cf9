"""Poisoning: what hostile clients make of their data, their answers and their models."""
