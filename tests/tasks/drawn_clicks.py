"""Clicks of drawn users, each with a taste for one of three shelves, and experiments on them."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import tiny

from fedkd.config import Experiment

ITEMS = 24
HIDE = [{"name": "dropout", "probability": 0.5}]
SMALL = {"name": "mult-dae", "hidden": [8]}
LEARNING = {
    "epochs": 15,
    "batch_size": 16,
    "optimiser": "adam",
    "learning_rate": 0.02,
    "augment": HIDE,
}


def write(folder: Path, *, users: int = 150, name: str = "clicks.csv") -> Path:
    """`clicks.csv` of `user, item, rating, time, shop`, and its catalogue `items.txt`."""
    draws = np.random.default_rng(8)
    rows = []
    for user in range(users):
        liking = np.where(np.arange(ITEMS) % 3 == user % 3, 8.0, 1.0)
        taken = draws.choice(ITEMS, size=8, replace=False, p=liking / liking.sum())
        for time, item in enumerate(taken):
            rows.append([f"u{user}", f"i{item}", 3 + item % 3, 1e9 + time, "ab"[user % 2]])
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["user", "item", "rating", "time", "shop"], *rows])
    (folder / "items.txt").write_text("\n".join(f"i{item}" for item in range(ITEMS)))
    return folder / name


def experiment(data: Path, changes: dict[str, Any]) -> Experiment:
    """Two rounds of two clients, the shops, with changes by dotted key."""
    base = {
        "task.name": "recommendation",
        "data.interactions": {"items": str(data.parent / "items.txt"), "time": "time"},
        "data.client": "shop",
        "data.partition": {"scheme": "natural"},
        "clients.count": None,
        "clients.models": [SMALL],
        "clients.training": LEARNING,
        "student.model": SMALL,
    }
    return tiny.experiment(data, {**base, **changes})
