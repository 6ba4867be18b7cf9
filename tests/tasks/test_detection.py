"""Detection: boxes drawn on a grid and found again, and a likelihood as its formulas say."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedkd import config, models, tasks
from fedkd.config import Distillation, Knowledge, ModelSpec, TaskChoice
from fedkd.errors import ConfigError
from fedkd.jobs.distil import distil
from fedkd.jobs.simulate import simulate
from fedkd.learning.dp.checks import check_model, checked_loss
from fedkd.learning.forms import terms
from fedkd.tasks import Task
from fedkd.tasks.boxes import grid
from fedkd.tasks.boxes.geometry import PADDING
from fedkd.tasks.likelihoods.centre_point import centre_point
from fedkd.tasks.motion import Motion

Array = NDArray[Any]
STRIDE, HEIGHT, WIDTH = 4, 6, 8
LIKELIHOOD = centre_point(2, STRIDE)
BOXES = torch.tensor(
    [
        [[0, 1.0, 2.0, 13.0, 10.0], [1, 14.0, 3.0, 31.0, 21.0], [PADDING, 0, 0, 0, 0]],
        [[1, 5.0, 5.0, 9.0, 7.0], [PADDING, 3.0, 0, 9, 9], [PADDING, 0, 0, 0, 0]],
        [[PADDING, 0, 0, 0, 0]] * 3,
    ]
)


def detection(**options: Any) -> Task:
    choice = TaskChoice(name="detection", **options)
    return tasks.build(choice, inputs=(3, HEIGHT * STRIDE, WIDTH * STRIDE), names=("cat", "dog"))


def cells(boxes: Array) -> tuple[Array, Array, Array]:
    """Heat, shapes and nearness of one record's boxes, cell by cell and box by box."""
    heat = np.zeros((HEIGHT, WIDTH, 2))
    shape, near = np.zeros((HEIGHT, WIDTH, 4)), np.zeros((HEIGHT, WIDTH))
    for row in range(HEIGHT):
        for column in range(WIDTH):
            for kind, *corners in boxes:
                if kind == PADDING:
                    continue
                left, top, right, bottom = np.array(corners) / STRIDE
                wide, high = right - left, bottom - top
                x, y = (left + right) / 2, (top + bottom) / 2
                dx, dy = column + 0.5 - x, row + 0.5 - y
                home = (int(x), int(y)) == (column, row)
                spread = [max(0.54 / 6 * side, 0.35) for side in (wide, high)]
                value = np.exp(-((dx / spread[0]) ** 2 + (dy / spread[1]) ** 2) / 2)
                value = 1.0 if home else value
                heat[row, column, int(kind)] = max(heat[row, column, int(kind)], value)
                if value > near[row, column]:
                    near[row, column] = value
                    shape[row, column] = np.log(wide), np.log(high), -dx, -dy
    return heat, shape, near


def sigmoid(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))


def nll(answers: Array, targets: Array) -> Array:
    values = []
    for answer, boxes in zip(answers, targets, strict=True):
        heat, shape, near = cells(boxes)
        p = sigmoid(answer[..., :2])
        focal = np.where(
            heat == 1, -((1 - p) ** 2) * np.log(p), -((1 - heat) ** 4) * p**2 * np.log(1 - p)
        )
        weights = np.where(near >= 0.3, near, 0)
        away = np.abs(answer[..., 2:] - shape).sum(axis=-1)
        shapes = (weights * away).sum() / max(weights.sum(), 1e-6)
        values.append(focal.sum() / max((boxes[:, 0] != PADDING).sum(), 1) + shapes)
    return np.array(values)


def divergence(student: Array, teacher: Array, temperature: float) -> Array:
    s, t = sigmoid(student[..., :2] / temperature), sigmoid(teacher[..., :2] / temperature)
    kl = t * np.log(t / s) + (1 - t) * np.log((1 - t) / (1 - s))
    p = sigmoid(teacher[..., :2])
    expected = np.maximum(p.sum(axis=(1, 2, 3)), 1)
    weights = p.max(axis=-1)
    away = np.abs(student[..., 2:] - teacher[..., 2:]).sum(axis=-1)
    shapes = (weights * away).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))
    return temperature**2 * kl.sum(axis=(1, 2, 3)) / expected + shapes


def drawn_answers(seed: int) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(len(BOXES), HEIGHT, WIDTH, 6, generator=draws, dtype=torch.float64)


def test_the_likelihood_is_the_formula_s() -> None:
    answers = drawn_answers(0)
    found = LIKELIHOOD.nll(answers, BOXES.double())
    np.testing.assert_allclose(found.numpy(), nll(answers.numpy(), BOXES.double().numpy()))
    assert LIKELIHOOD.mean_nll(answers, BOXES.double()) == found.mean()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_divergence_is_the_formula_s_and_nothing_between_equals(temperature: float) -> None:
    compare = partial(LIKELIHOOD.divergence, temperature=temperature)
    student, teacher = drawn_answers(1), drawn_answers(2)
    expected = divergence(student.numpy(), teacher.numpy(), temperature)
    np.testing.assert_allclose(compare(student, teacher).numpy(), expected)
    assert (compare(student, teacher) > 0).all()
    assert torch.equal(compare(teacher, teacher), torch.zeros(3, dtype=torch.float64))


def test_what_is_far_off_stays_finite() -> None:
    extreme = torch.full((3, HEIGHT, WIDTH, 6), -1e4)
    extreme[1] = 1e4
    assert LIKELIHOOD.nll(extreme, BOXES).isfinite().all()
    assert LIKELIHOOD.divergence(extreme, -extreme, temperature=1.0).isfinite().all()
    assert grid.found(torch.full_like(extreme, torch.nan), stride=STRIDE)[..., :5].isfinite().all()


def test_a_record_s_loss_is_its_own_as_dp_sgd_asks() -> None:
    answers = drawn_answers(3).float()
    assert checked_loss(LIKELIHOOD.nll)(answers, BOXES).shape == (3,)


def answered(boxes: Tensor) -> Tensor:
    """What a perfect model answers."""
    maps = grid.drawn(boxes, (HEIGHT, WIDTH), stride=STRIDE, classes=2)
    return torch.cat([torch.logit(maps.heat, eps=1e-4), maps.shape], dim=-1)


def test_boxes_that_were_drawn_are_found_and_score_one() -> None:
    decided = LIKELIHOOD.decide(answered(BOXES))
    for found, true in zip(decided, BOXES, strict=True):
        expected = sorted(row for row in true.tolist() if row[0] != PADDING)
        assert sorted(row for row in found.tolist() if row[0] != PADDING) == [
            pytest.approx(row, abs=1e-3) for row in expected
        ]
    for score in detection(scores=("ap50", "ap40", "ap75", "ap"), stride=STRIDE).scores:
        assert score.of(answered(BOXES), BOXES)[score.figure] == pytest.approx(1.0)


def test_a_found_box_is_the_highest_of_its_neighbours_and_ends_at_the_image() -> None:
    answers = torch.full((1, HEIGHT, WIDTH, 5), -9.0)
    answers[..., 1:] = 0
    answers[0, 0, 0] = torch.tensor([2.0, np.log(4), np.log(2), 0.25, 0.0])
    answers[0, 0, 1, 0] = 1.5  # beside the first, and less sure
    answers[0, 3, 5] = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.5])
    first, second = grid.found(answers, stride=STRIDE, most=2)[0].tolist()
    assert first == pytest.approx([0, 0.0, 0.0, 11.0, 6.0, 2.0])
    assert second == pytest.approx([0, 20.0, 14.0, 24.0, 18.0, 1.0])


def test_options_that_do_not_fit_are_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"task\.stride is 5, .* 32 pixels wide and 24 high"):
        detection(stride=5)
    with pytest.raises(ConfigError, match=r"shape \(7,\): expected images"):
        tasks.build(TaskChoice(name="detection"), inputs=(7,), names=("cat",))
    task = detection(stride=8)
    spec = ModelSpec(name="centre-point", widths=(4, 4))
    with pytest.raises(ConfigError, match=r"cells of 2, 4 pixels.*task\.stride"):
        built(spec, task)


def built(spec: ModelSpec, task: Task) -> torch.nn.Module:
    draws = torch.Generator().manual_seed(0)
    return models.build(spec, shape=task.inputs, classes=task.classes, generator=draws, task=task)


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_the_built_in_model_answers_on_the_grid_and_touches_each_record_by_itself(
    stride: int,
) -> None:
    task = detection(stride=stride)
    model = built(ModelSpec(name="centre-point", widths=(4, 4, 8)), task)
    assert task.answer == (HEIGHT * STRIDE // stride, WIDTH * STRIDE // stride, 6)
    check_model(model, task.inputs)


def write_squares(path: Path, records: int = 48) -> Path:
    """Grey images of 16x16, with a bright square of 6 somewhere, and its box."""
    draws = np.random.default_rng(3)
    arrays = {}
    for part, count in (("train", records), ("test", 16)):
        x = draws.integers(0, 60, (count, 16, 16)).astype(np.uint8)
        corners = draws.integers(0, 10, (count, 2))
        for image, (left, top) in zip(x, corners, strict=True):
            image[top : top + 6, left : left + 6] = 230
        boxes = np.column_stack([np.zeros(count), corners, corners + 6])
        arrays |= {f"x_{part}": x, f"y_{part}": boxes[:, None].astype(np.float32)}
    np.savez(path, **arrays)
    return path


LEARNING = {"epochs": 6, "batch_size": 8, "optimiser": "adam", "learning_rate": 0.01}
SMALL = {"name": "centre-point", "widths": [8, 8]}


@pytest.mark.slow
def test_a_federation_finds_squares(tmp_path: Path) -> None:
    own = tiny.experiment(
        write_squares(tmp_path / "squares.npz"),
        {
            "rounds": 1,
            "task": {"name": "detection"},
            "data.public.size": 16,
            "clients": {"count": 2, "models": [SMALL], "training": LEARNING | {"epochs": 15}},
            "student.model": SMALL,
            "method": {"name": "fedmd", "student": LEARNING | {"epochs": 60}},
        },
    )
    summary = simulate(own, tmp_path / "run")
    assert [score["name"] for score in summary["scores"]] == ["ap50", "ap"]
    assert summary["student"]["ap50"] > 0.5
    assert (tmp_path / "run" / "examples.safetensors").is_file()


@pytest.mark.slow
def test_features_near_objects_and_bounded_shapes_teach_a_student(tmp_path: Path) -> None:
    table = {
        "name": "squares",
        "plain": False,
        "task": {"name": "detection"},
        "data": {"name": str(write_squares(tmp_path / "squares.npz"))},
        "teachers": [{"model": SMALL, "training": LEARNING}],
        "student": {"model": SMALL, "training": LEARNING},
        "way": {"name": "offline", "labels": 0.0},
        "knowledge": [
            {"name": "divergence"},
            {"name": "bounded-shapes", "margin": 0.1},
            {"name": "imitation", "weight": 1.0},
        ],
    }
    summary = distil(config.validate(Distillation, table), tmp_path / "run")
    assert summary["knowledge"] == ["divergence", "bounded-shapes", "imitation"]
    lines = (tmp_path / "run/rounds.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    losses = [each["loss"] for each in told if each["stage"] == "student"]
    assert losses[-1] < losses[0] / 2


def test_forms_of_boxes_are_refused_where_there_are_none() -> None:
    classes = tasks.build(TaskChoice(), inputs=(3, 8, 8), names=("cat", "dog"))
    with pytest.raises(ConfigError, match=r"knowledge\[0\] \(imitation\) compares boxes, and task"):
        terms.check_task([Knowledge(name="imitation")], classes)
    with pytest.raises(ConfigError, match=r"knowledge\[0\]\.stride is 4; expected 8, as task"):
        terms.check_task([Knowledge(name="bounded-shapes")], detection(stride=8))


@pytest.mark.parametrize("mirrored", [False, True])
def test_boxes_move_with_their_image_and_one_that_is_mostly_cut_off_is_none(mirrored: bool) -> None:
    boxes = torch.tensor(
        [[[1, 2.0, 1.0, 6.0, 5.0], [0, 0.0, 0.0, 3.0, 3.0], [PADDING, 0, 0, 0, 0]]]
    )
    motion = Motion(torch.tensor([2]), torch.tensor([2]), torch.tensor([mirrored]), (6, 8))
    moved = LIKELIHOOD.moved(boxes, motion)[0].tolist()
    across = [4.0, 8.0] if mirrored else [0.0, 4.0]
    assert moved == [
        [1, across[0], 0.0, across[1], 3.0],
        [PADDING, 0, 0, 0, 0],
        [PADDING, 0, 0, 0, 0],
    ]


def test_together_the_sure_weigh_more_and_shapes_are_those_of_who_sees_a_centre() -> None:
    answers = torch.zeros(2, 1, 1, 1, 5)
    answers[0] = torch.tensor([6.0, 1.0, 2.0, 3.0, 4.0])
    answers[1] = torch.tensor([-0.5, -9.0, -9.0, -9.0, -9.0])
    heat, *shape = detection(stride=4).likelihood.mix(answers)[0, 0, 0].tolist()
    p = sigmoid(np.array([6.0, -0.5]))
    weights = np.exp(p * np.log(p) + (1 - p) * np.log(1 - p))
    assert heat == pytest.approx((weights * [6.0, -0.5]).sum() / weights.sum(), rel=1e-5)
    expected = [(p[0] * n - p[1] * 9) / p.sum() for n in (1, 2, 3, 4)]
    assert shape == pytest.approx(expected, rel=1e-5)
    assert detection(stride=4, together="mean").likelihood.mix is None


def test_boxes_of_a_list_are_answered_as_a_grid_would() -> None:
    odds = torch.tensor([[[2.0], [0.5], [9.0]], [[-1.0], [9.0], [9.0]], [[9.0]] * 3])
    found = torch.cat([BOXES, odds], dim=2)
    answers = grid.answered(found, (HEIGHT, WIDTH), stride=STRIDE, classes=2)
    again = grid.found(answers, stride=STRIDE, most=2)
    torch.testing.assert_close(again[0], found[0, :2])
    torch.testing.assert_close(again[1, 0], found[1, 0])
    assert (again[2, :, 5] < -6).all()


def test_boxes_that_overlap_are_fused_and_one_that_stands_alone_is_doubted() -> None:
    both = [[0, 4.0, 4.0, 20.0, 20.0], [0, 4.0, 4.0, 22.0, 20.0]]
    alone = [1, 24.0, 8.0, 30.0, 16.0]
    found = torch.tensor([[[*both[0], 2.0], [*alone, 1.0]], [[*both[1], 0.0], [-1, 0, 0, 0, 0, 9]]])
    answers = [
        grid.answered(each[None], (HEIGHT, WIDTH), stride=STRIDE, classes=2) for each in found
    ]
    task = detection(stride=STRIDE, together="boxes")
    first, second = grid.found(task.likelihood.mix(torch.stack(answers)), stride=STRIDE, most=2)[0]
    p = sigmoid(np.array([2.0, 0.0, 1.0]))
    right = (p[0] * 20 + p[1] * 22) / (p[0] + p[1])
    assert first[:5].tolist() == pytest.approx([0, 4, 4, right, 20], rel=1e-4)
    assert first[5].sigmoid().item() == pytest.approx((p[0] + p[1]) / 2, rel=1e-4)
    assert second[:5].tolist() == pytest.approx(alone, rel=1e-4)
    assert second[5].sigmoid().item() == pytest.approx(p[2] / 2, rel=1e-4)
