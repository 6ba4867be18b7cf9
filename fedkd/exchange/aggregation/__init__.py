"""Aggregation: many clients' knowledge into one. Pure functions; the first axis is the client."""

from fedkd.exchange.aggregation.means import (
    average_models,
    bounded,
    by_class_shares,
    entropy_reduction,
    mean,
    mean_by_class,
)

__all__ = [
    "average_models",
    "bounded",
    "by_class_shares",
    "entropy_reduction",
    "mean",
    "mean_by_class",
]
