"""One party's distillation across views: a teacher sees one part, the student another."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch

from fedkd.config import Distillation
from fedkd.errors import ConfigError, DataError
from fedkd.jobs.distil import distil
from fedkd.learning.ways.prepare import prepare
from fedkd.runs import student as finished

HOW = {"epochs": 8, "batch_size": 16, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`clear` tells the class well, `faint` less, in other numbers."""
    path, parts = tmp_path_factory.mktemp("pairs") / "pairs.npz", {}
    for part, size in (("train", 120), ("test", 60)):
        draw = np.random.default_rng(size)
        y = np.arange(size) % 3
        clear = 2 * np.eye(3)[y] + 0.3 * draw.normal(size=(size, 3))
        faint = np.eye(3, 5, 2)[y] + 0.3 * draw.normal(size=(size, 5))
        parts |= {
            f"x_{part}.clear": clear.astype(np.float32),
            f"x_{part}.faint": faint.astype(np.float32),
            f"y_{part}": y,
        }
    np.savez(path, **parts)
    return path


def across(data: Path, **changes: Any) -> Distillation:
    teacher = {"model": {"name": "mlp", "hidden": [12]}, "training": HOW, "views": ["clear"]}
    student = {"model": {"name": "mlp", "hidden": [8]}, "training": HOW, "views": ["faint"]}
    table = {"teachers": [teacher], "student": student, "plain": False}
    return small.small(data, **{**table, **changes})


def test_supervision_goes_from_one_view_to_the_other(pairs: Path, tmp_path: Path) -> None:
    """Answers and a middle layer, no labels: Gupta et al. 2016, arXiv:1507.00448."""
    asked = across(pairs, way={"name": "offline", "labels": 0})
    ready = prepare(asked)
    assert [each.shape for each in ready.shares.teachers] == [(3,)]
    assert ready.data.shape == (5,)
    assert torch.equal(ready.shares.shown[0], ready.shares.whole.train.x.columns["clear"])
    summary = distil(asked, tmp_path / "run")
    assert summary["student"]["accuracy"] > 0.8  # it saw no label
    assert finished.load(tmp_path / "run").shape == (5,)


def test_several_teachers_each_see_their_own(pairs: Path, tmp_path: Path) -> None:
    teachers = [
        {"model": {"name": "mlp", "hidden": [12]}, "training": HOW, "views": [view]}
        for view in ("clear", "faint")
    ]
    asked = across(
        pairs, teachers=teachers, way={"name": "multi-teacher", "labels": 0}, knowledge=[]
    )
    assert distil(asked, tmp_path / "run")["student"]["accuracy"] > 0.8


def test_any_way_takes_one_view_that_all_see(pairs: Path) -> None:
    alone = across(
        pairs, teachers=[], knowledge=[], way={"name": "mean-teacher", "labelled": 60, "shift": 0}
    )
    assert prepare(alone).data.shape == (5,)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"way": {"name": "injection", "layer": "hidden1", "block": "hidden1"}}, ConfigError,
         "way 'injection' shows student and teachers the same, .*: choose among offline, multi"),
        ({"student": {"model": "mlp", "views": ["loud"]}}, ConfigError,
         "student.views names view 'loud', which no client has"),
        ({"student": {"model": "mlp", "views": ["faint"], "training": {"augment": ["flip"]}}},
         ConfigError, "augment changes what the student sees, and its teachers see another"),
        ({"student": {"model": "mlp"}}, DataError, "records have the columns clear, faint"),
    ],
)  # fmt: skip
def test_what_cannot_cross_is_refused(
    pairs: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        prepare(across(pairs, **changes))
