"""A class for each pixel: scores as scikit-learn says, and the task from a file to its report."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from fedkd import tasks
from fedkd.config import Distillation, Experiment, TaskChoice, validate
from fedkd.errors import ConfigError
from fedkd.federation.prepare import prepare
from fedkd.jobs.distil import distil
from fedkd.jobs.simulate import simulate
from fedkd.runs import examples
from fedkd.tasks import Task
from fedkd.tasks.likelihoods.categorical import CATEGORICAL, IGNORED

SMALL = {"name": "unet", "width": 4, "levels": 2, "blocks": 1}
LEARNING = {"epochs": 12, "batch_size": 4, "optimiser": "adam", "learning_rate": 0.03}


def segmentation(shape: tuple[int, ...] = (1, 5, 6), classes: int = 3, **options: Any) -> Task:
    names = tuple(map(str, range(classes)))
    choice = TaskChoice(name="segmentation", scores=tuple(tasks.find("segmentation").scores))
    return tasks.build(choice.model_copy(update=options), inputs=shape, names=names)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_scores_of_parties_together_are_scikit_learn_s(seed: int) -> None:
    draws = np.random.default_rng(seed)
    truth, answered = draws.integers(0, 3, (2, 7, 5, 6))
    truth[draws.random(truth.shape) < 0.3] = IGNORED
    targets = torch.from_numpy(truth)
    answers = torch.nn.functional.one_hot(torch.from_numpy(answered), 3).float()
    counted = truth != IGNORED
    pair, classes = (truth[counted], answered[counted]), [0, 1, 2]
    given = {
        score.figure: score.read(
            score.tally(answers[:2], targets[:2]) + score.tally(answers[2:], targets[2:]),
            score.totals(targets),
        )
        for score in segmentation().scores
    }
    iou = metrics.jaccard_score(*pair, labels=classes, average=None)
    assert given["miou"]["miou_by_class"] == pytest.approx(iou)
    assert given["miou"]["miou"] == pytest.approx(iou.mean())
    dice = metrics.f1_score(*pair, labels=classes, average=None)
    assert given["dice"]["dice_by_class"] == pytest.approx(dice)
    right = metrics.accuracy_score(*pair)
    assert given["pixel_accuracy"]["pixel_accuracy"] == pytest.approx(right)
    matrix = metrics.confusion_matrix(*pair, labels=classes)
    assert given["confusion"]["confusion"] == matrix.tolist()


def test_a_tally_is_bounded_by_the_pixels_of_each_class() -> None:
    (miou, *_) = segmentation().scores
    targets = torch.tensor([[[0, 1, 1], [2, IGNORED, 1]]])
    most = miou.totals(targets).expand(miou.counts.shape)
    assert most.tolist() == [[1] * 3, [3] * 3, [1] * 3]
    tally = miou.tally(torch.randn(1, 2, 3, 3), targets)
    assert bool((tally <= most).all())
    assert int(tally.sum()) == 5


def test_a_class_that_is_nowhere_is_left_out_of_the_mean() -> None:
    targets = torch.zeros(1, 2, 2, dtype=torch.int64)
    answers = torch.tensor([5.0, 0.0, 0.0]).expand(1, 2, 2, 3)
    (miou, *_) = segmentation().scores
    assert miou.of(answers, targets) == {"miou": 1.0, "miou_by_class": [1.0, None, None]}


def test_a_pixel_that_does_not_count_costs_nothing() -> None:
    targets = torch.tensor([[[0, IGNORED], [IGNORED, 1]]])
    answers = torch.randn(1, 2, 2, 3, requires_grad=True)
    CATEGORICAL.nll(answers, targets).sum().backward()
    assert answers.grad is not None
    assert (answers.grad.abs().sum(dim=-1) > 0).tolist() == (targets != IGNORED).tolist()


def spots(path: Path, count: int = 12, side: int = 12) -> Path:
    """Bright squares on a dark ground: class 1 where there is one, 2 on its left edge."""
    draws = np.random.default_rng(3)
    arrays: dict[str, Any] = {}
    for part, records in (("train", 3 * count), ("test", count)):
        x = draws.random((records, side, side)).astype(np.float32) * 0.3
        y = np.zeros((records, side, side), np.uint8)
        for image, mask in zip(x, y, strict=True):
            top, left = draws.integers(0, side - 5, 2)
            image[top : top + 5, left : left + 5] += 0.6
            mask[top : top + 5, left : left + 5] = 1
            mask[top : top + 5, left] = 2
        y[0, 0, 0] = 255
        arrays |= {f"x_{part}": x, f"y_{part}": y}
    arrays["client_train"] = np.arange(3 * count) % 2
    np.savez(path, **arrays)
    return path


def experiment(data: Path, **changes: Any) -> Experiment:
    return tiny.experiment(
        data,
        {
            "task": {"name": "segmentation", "classes": ["ground", "spot", "edge"]},
            "data.partition": {"scheme": "natural"},
            "data.public": {"source": "held-out", "size": 12},
            "clients.count": None,
            "clients.models": [SMALL],
            "clients.training": LEARNING,
            "student.model": SMALL,
            "method": {"name": "fedmd", "student": {**LEARNING, "epochs": 20}},
            **changes,
        },
    )


def test_a_federation_segments_and_shows_it(tmp_path: Path) -> None:
    summary = simulate(experiment(spots(tmp_path / "spots.npz")), tmp_path / "run")
    assert summary["student"]["miou"] > 0.5  # of one colour everywhere: 0.3
    shown = examples.read(tmp_path / "run")
    assert shown is not None
    assert shown.classes == ("ground", "spot", "edge")
    assert list(shown.answers) == ["Teacher of client 0", "Teacher of client 1", "Student"]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    [table] = re.findall(r'<figure class="examples">.*?</figure>', page, flags=re.DOTALL)
    assert table.count("<img") == 4 * 5
    assert "mean IoU" in page or "miou" in page.lower()


def distillation(
    data: Path, way: dict[str, Any], knowledge: list[dict[str, Any]], epochs: int
) -> Distillation:
    how = {**LEARNING, "epochs": epochs}
    table = {
        "name": "spots",
        "task": {"name": "segmentation"},
        "data": {"name": str(data)},
        "teachers": [{"model": SMALL, "training": {**how, "augment": ["flip"]}}],
        "student": {"model": {**SMALL, "width": 3}, "training": how},
        "way": way,
        "knowledge": knowledge,
    }
    return validate(Distillation, table)


def test_a_student_learns_pixels_pairs_and_affinity(tmp_path: Path) -> None:
    layers = {"student": ["up.0"], "teacher": ["up.0"]}
    asked = [
        {"name": "kd", "temperature": 1, "weight": 1},
        {"name": "pairwise", "grid": 4, **layers},
        {"name": "affinity", "grid": 4, **layers},
    ]
    told = distillation(spots(tmp_path / "spots.npz"), {"name": "offline", "labels": 0}, asked, 10)
    told = told.model_copy(update={"plain": False})
    summary = distil(told, tmp_path / "run")
    assert summary["student"]["miou"] > 0.45
    shown = examples.read(tmp_path / "run")
    assert shown is not None
    assert list(shown.answers) == ["Teacher 1", "Student"]
    assert "What it looks like" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_teachers_of_other_views_are_not_among_the_examples(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    images, masks = draw.random((6, 3, 8, 8), np.float32), draw.integers(0, 3, (6, 8, 8))
    views = {"grey": images[:, :1], "red": images}
    x = {f"x_{part}.{view}": each for part in ("train", "test") for view, each in views.items()}
    np.savez(tmp_path / "views.npz", **x, y_train=masks, y_test=masks)
    told = distillation(tmp_path / "views.npz", {"name": "offline"}, [{"name": "kd"}], 1)
    table = told.model_dump(exclude_unset=True) | {"plain": False}
    table["teachers"][0]["views"], table["student"]["views"] = ["red"], ["grey"]
    distil(validate(Distillation, table), tmp_path / "run")
    shown = examples.read(tmp_path / "run")
    assert shown is not None
    assert list(shown.answers) == ["Student"]


def test_a_student_learns_without_data_or_labels(tmp_path: Path) -> None:
    way = {"name": "dfad", "steps": 5, "imitations": 2, "batch_size": 6, "latent": 8, "width": 4}
    told = distillation(spots(tmp_path / "spots.npz"), way, [], epochs=4)
    summary = distil(told.model_copy(update={"plain": False}), tmp_path / "run")
    lines = (tmp_path / "run" / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    own = [each["miou"] for each in map(json.loads, lines) if each["stage"] == "student"]
    assert len(own) == 4
    assert summary["student"]["miou"] == own[-1]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"task": {"name": "segmentation", "classes": ["a", "b"]}}, "names 2 classes .* have 3"),
        ({"method": {"name": "fedproto"}}, "fedproto"),
        ({"data.partition": {"scheme": "dirichlet", "alpha": 1}, "clients.count": 2}, "dirichlet"),
        ({"clients.training": {"augment": ["rotate"]}}, "'rotate': it moves"),
        ({"clients.models": ["lenet5"]}, "does not answer in the shape"),
        ({"data.tile": 4}, "it is for folders of pictures"),
    ],
)
def test_what_does_not_suit_is_one_line(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    data = spots(tmp_path / "spots.npz", count=2)
    changes = {"data.public": {"source": "held-out", "size": 2}, **changes}
    with pytest.raises(ConfigError, match=complaint) as refused:
        prepare(experiment(data, **changes))
    assert "\n" not in str(refused.value)


def test_a_federation_segments_under_dp(tmp_path: Path) -> None:
    """The loss is per record, a mean over its pixels, and GroupNorm is of each image alone."""
    about = {
        "privacy": {"epsilon": 1e7, "noise_multiplier": 0.02, "sample_rate": 0.3, "clip": 1.0},
        "rounds": 1,
        # Samples and noise are fresh each time, and a teacher may stay at one colour: 28 runs had
        # a best teacher above 0.59.
        "clients.training": {**LEARNING, "epochs": 16, "learning_rate": 0.04, "augment": ["flip"]},
        "method": {"name": "fedmd", "student": {**LEARNING, "epochs": 2}},
    }
    summary = simulate(experiment(spots(tmp_path / "spots.npz"), **about), tmp_path / "run")
    assert summary["privacy"]["unit"] == "record"
    assert summary["teachers"]["best_miou"] > 0.33  # of one colour everywhere: 0.3


def test_batch_norm_is_refused_under_dp(tmp_path: Path) -> None:
    model = {**SMALL, "norm": "batch"}
    about = {"privacy": {"epsilon": 8}, "clients.models": [model], "rounds": 1}
    with pytest.raises(ConfigError, match=r"BatchNorm2d, which keeps .*norm = .group."):
        prepare(experiment(spots(tmp_path / "spots.npz"), **about))
