"""Classifiers and generators, built by name or given by the user."""

from fedkd.models.factory import NAMES, build
from fedkd.models.generators import build_generator

__all__ = ["NAMES", "build", "build_generator"]
