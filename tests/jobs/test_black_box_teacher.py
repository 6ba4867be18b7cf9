"""A teacher with nothing to train, of which nothing but answers is seen."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedkd import config
from fedkd.config import Distillation
from fedkd.jobs.distil import distil


class Brighter(nn.Module):
    """Says which half of a row has the larger sum, through numpy, as somebody's service would."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        halves = np.stack([half.sum(axis=1) for half in np.split(x.numpy(), 2, axis=1)], axis=1)
        return torch.from_numpy(5 * halves)


def write_rows(path: Path) -> Path:
    draws = np.random.default_rng(4)
    arrays = {}
    for part, count in (("train", 200), ("test", 100)):
        x = draws.normal(size=(count, 6)).astype(np.float32)
        truth = (x[:, 3:].sum(axis=1) > x[:, :3].sum(axis=1)).astype(np.int64)
        # Labels to learn from are wrong, so that the teacher alone can have taught what is right.
        arrays |= {f"x_{part}": x, f"y_{part}": 1 - truth if part == "train" else truth}
    np.savez(path, **arrays)
    return path


def test_a_teacher_without_parameters_is_asked_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "service", sys.modules[__name__])
    training = {"epochs": 20, "batch_size": 20, "learning_rate": 0.1}
    told = config.validate(
        Distillation,
        {
            "name": "black-box",
            "plain": False,
            "data": {"name": str(write_rows(tmp_path / "rows.npz"))},
            "teachers": [{"model": "service:Brighter"}],
            "student": {"model": {"name": "mlp", "hidden": [8]}, "training": training},
            "way": {"name": "offline", "labels": 0.0},
            "knowledge": [{"name": "kd"}],
        },
    )
    summary = distil(told, tmp_path / "run")
    [teacher] = summary["teachers"]
    assert (teacher["accuracy"], teacher["parameters"]) == (1.0, 0)
    assert summary["student"]["accuracy"] > 0.9
    lines = (tmp_path / "run/rounds.jsonl").read_text().splitlines()
    assert {json.loads(line)["stage"] for line in lines} == {"student"}
