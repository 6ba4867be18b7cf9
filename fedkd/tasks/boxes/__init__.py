"""Boxes: how a grid speaks of them, and how they are compared."""
