"""Distillations that take a second."""

from copy import deepcopy
from typing import Any

from fedkd.config import Distillation, validate

TABLE: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "teachers": [
        {
            "model": {"name": "mlp", "hidden": [12]},
            "training": {"epochs": 3, "batch_size": 16, "learning_rate": 0.05},
        }
    ],
    "student": {
        "model": {"name": "mlp", "hidden": [4]},
        "training": {"epochs": 2, "batch_size": 16, "learning_rate": 0.05},
    },
    "way": {"name": "offline", "labels": 0.3},
    "knowledge": [{"name": "kd"}, {"name": "fitnets", "weight": 0.1}],
}


def table(data: Any, **changed: Any) -> dict[str, Any]:
    return {**deepcopy(TABLE), "data": {"name": str(data)}, **changed}


def small(data: Any, **changed: Any) -> Distillation:
    return validate(Distillation, table(data, **changed))


def ignore(_phase: str, _done: int, _total: int) -> None:
    """Whoever watches, and does not care."""
