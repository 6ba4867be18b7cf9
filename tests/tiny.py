"""Experiments that take a second: separable samples in an .npz file, small models, few epochs."""

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from fedkd import config
from fedkd.config import Experiment

CLASSES = 3


def write_rows(
    path: Path, *, samples: int = 240, features: int = 10, seed: int = 0, spread: float = 1.0
) -> Path:
    """Rows of features in three Gaussian clusters."""
    draw = np.random.default_rng([seed, samples, features])
    centres = draw.normal(size=(CLASSES, features)) * 2
    parts = {}
    for part, size in (("train", samples), ("test", samples // 2)):
        y = np.arange(size) % CLASSES
        parts[f"x_{part}"] = (centres[y] + spread * draw.normal(size=(size, features))).astype(
            np.float32
        )
        parts[f"y_{part}"] = y.astype(np.int64)
    np.savez(path, **parts)
    return path


def write_images(path: Path, *, side: int, samples: int = 240, seed: int = 0) -> Path:
    """Grey images, bright in the third of the columns that is their class."""
    draw = np.random.default_rng([seed, samples, side])
    parts = {}
    for part, size in (("train", samples), ("test", samples // 2)):
        y = np.arange(size) % CLASSES
        columns = np.arange(side) * CLASSES // side
        bright = (columns[None, :] == y[:, None]).astype(np.float32)[:, None, :]
        noise = draw.uniform(0, 0.5, size=(size, side, side))
        parts[f"x_{part}"] = (noise + bright / 2).astype(np.float32)
        parts[f"y_{part}"] = y.astype(np.int64)
    np.savez(path, **parts)
    return path


BASE: dict[str, Any] = {
    "name": "tiny",
    "seed": 7,
    "rounds": 2,
    "data": {"public": {"size": 40}, "partition": {"scheme": "iid"}},
    "clients": {
        "count": 4,
        "models": [{"name": "mlp", "hidden": [16]}, {"name": "mlp", "hidden": [8, 8]}],
        "training": {"epochs": 1, "batch_size": 16, "learning_rate": 0.05},
    },
    "student": {"model": {"name": "mlp", "hidden": [16]}},
    "method": {"name": "fedmd"},
    "engine": {"threads": 2},
}


def table(data: Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The base experiment on a data file, with changes by dotted key; None takes a key out.

    Its method's student learns classes in 30 epochs: of 160, as ever for so few rows, it takes most
    of the time.
    """
    experiment = deepcopy(BASE)
    for key, value in {"data.name": str(data), **(changes or {})}.items():
        *sections, last = key.split(".")
        place = experiment
        for section in sections:
            place = place.setdefault(section, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    method = experiment.get("method", {})
    if method.get("name") == BASE["method"]["name"] and "task" not in experiment:
        experiment["method"] = {**method, "student": {"epochs": 30, **method.get("student", {})}}
    return experiment


def experiment(data: Path, changes: Mapping[str, Any] | None = None) -> Experiment:
    """`table`, validated."""
    return config.parse(table(data, changes))


def write_config(path: Path, data: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """`table` as a TOML file."""
    path.write_text(tomli_w.dumps(table(data, changes)), encoding="utf-8")
    return path


def student_hash(run: Path) -> str:
    """SHA-256 of a run's student."""
    return hashlib.sha256((run / "student.safetensors").read_bytes()).hexdigest()


def rounds(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's rounds.jsonl."""
    return [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]


def failures(run: Path) -> list[tuple[int, int, str]]:
    """(round, client, reason) of each answer that was left out."""
    return [
        (record["round"], failure["client"], failure["reason"])
        for record in rounds(run)
        for failure in record["failures"]
    ]


class Quiet:
    """An observer that looks away."""

    def round_begins(self, round: int, cohort: list[int]) -> None: ...

    def client_does(self, client: int, phase: str, done: int, total: int) -> None: ...

    def client_ends(self, client: int, failure: str | None) -> None: ...

    def server_does(self, phase: str, done: int, total: int) -> None: ...

    def round_ends(self, record: dict[str, Any]) -> None: ...
