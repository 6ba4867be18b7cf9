"""Small CSV files of numbers and of labels that a line predicts well, and experiments on them."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import tiny

from fedkd.config import Experiment

FEATURES = 4
SMALL = {"name": "mlp", "hidden": [16]}
LEARNING = {"epochs": 8, "batch_size": 16, "learning_rate": 0.05}


def _write(path: Path, targets: dict[str, np.ndarray], x: np.ndarray) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow([*(f"x{n}" for n in range(x.shape[1])), *targets])
        table.writerows(np.column_stack([x.round(4), *targets.values()]).tolist())
    return path


def write_numbers(path: Path, rows: int = 240) -> Path:
    """A price in the hundreds, and a count of visits that a Poisson distribution gives."""
    draws = np.random.default_rng(5)
    x = draws.normal(size=(rows, FEATURES))
    rate = x @ [0.5, -0.4, 0.2, 0.0]
    price = 300 + 60 * (x @ [1.0, 0.5, 0.0, -0.5]) + 10 * draws.normal(size=rows)
    return _write(path, {"price": price.round(2), "visits": draws.poisson(np.exp(1 + rate))}, x)


def write_labels(path: Path, rows: int = 240) -> Path:
    """Three labels, each where a line of its own has some of them."""
    draws = np.random.default_rng(6)
    x = draws.normal(size=(rows, FEATURES))
    noise = 0.3 * draws.normal(size=(3, rows))
    lines = np.array([[1, 1, 0, 0], [0, 1, -1, 0], [0, 0, 0.5, 1]]) @ x.T + noise
    names = ("red", "green", "blue")
    limits = (0.0, 0.5, -0.5)
    labels = [(line > limit).astype(int) for line, limit in zip(lines, limits, strict=True)]
    return _write(path, dict(zip(names, labels, strict=True)), x)


def experiment(data: Path, changes: dict[str, Any]) -> Experiment:
    """Two rounds of three equal clients, with changes by dotted key."""
    equal = {
        "clients.count": 3,
        "clients.models": [SMALL],
        "clients.training": LEARNING,
        "student.model": SMALL,
    }
    return tiny.experiment(data, {**equal, **changes})
