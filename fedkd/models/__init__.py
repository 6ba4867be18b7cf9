"""Classifiers and generators, built by name or given by the user."""

from fedkd.models.factory import NAMES, build
from fedkd.models.generators import build_generator
from fedkd.models.heads import Head, head

__all__ = ["NAMES", "Head", "build", "build_generator", "head"]
