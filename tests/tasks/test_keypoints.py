"""Keypoints: heatmaps, decoding and scores as their formulas say, records by themselves."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd import tasks
from fedkd.config import TaskChoice
from fedkd.errors import ConfigError
from fedkd.learning.dp.checks import checked_loss
from fedkd.tasks import Task

NAMES = ("head", "hand", "foot")
HEIGHT, WIDTH = 20, 26


def keypoints(scores: tuple[str, ...] = ("pck", "nme"), **options: Any) -> Task:
    choice = TaskChoice(name="keypoints", scores=scores, **options)
    return tasks.build(choice, inputs=(3, HEIGHT, WIDTH), names=NAMES)


def drawn(seed: int, records: int = 6, *, hidden: float = 0.3) -> Tensor:
    """Points (N, 3, 3) within the image, some of which are not visible."""
    draws = np.random.default_rng(seed)
    places = draws.uniform(0, [WIDTH, HEIGHT], size=(records, len(NAMES), 2))
    visible = draws.uniform(size=(records, len(NAMES), 1)) > hidden
    return torch.tensor(np.concatenate([places, visible], axis=2), dtype=torch.float32)


def heat(point: Any, stride: int, sigma: float) -> Any:
    rows, columns = -(-HEIGHT // stride), -(-WIDTH // stride)
    down, across = np.mgrid[:rows, :columns] + 0.5
    squares = (across - point[0] / stride) ** 2 + (down - point[1] / stride) ** 2
    return np.exp(-squares / (2 * sigma**2))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), stride=st.integers(1, 5), sigma=st.floats(0.5, 3))
def test_the_likelihood_is_half_the_squared_error_of_what_is_visible(
    seed: int, stride: int, sigma: float
) -> None:
    task, points = keypoints(stride=stride, sigma=sigma), drawn(seed)
    answers = torch.randn(len(points), *task.answer, generator=torch.Generator().manual_seed(seed))
    expected = []
    for answer, record in zip(answers.double().numpy(), points.double().numpy(), strict=True):
        each = [
            ((answer[..., k] - heat(point, stride, sigma)) ** 2).sum() / (2 * np.pi * sigma**2)
            for k, point in enumerate(record)
            if point[2]
        ]
        expected.append(np.mean(each) if each else 0.0)
    found = task.likelihood.nll(answers, points)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    mean = task.likelihood.mean_nll(answers, points).item()
    assert mean == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_record_s_gradient_is_its_own_and_what_is_hidden_has_none() -> None:
    task, points = keypoints(), drawn(3)
    answers = torch.randn(len(points), *task.answer).requires_grad_()
    nll = checked_loss(task.likelihood.nll)  # refuses a loss that couples records
    (together,) = torch.autograd.grad(nll(answers, points).sum(), answers)
    for row in range(len(points)):
        own = answers[row : row + 1].detach().requires_grad_()
        (alone,) = torch.autograd.grad(nll(own, points[row : row + 1]).sum(), own)
        torch.testing.assert_close(alone[0], together[row])
    hidden = (points[..., 2] == 0)[:, None, None].expand_as(together)
    assert hidden.any()
    assert not together[hidden].any()
    assert not (together[~hidden] == 0).all()


def test_the_divergence_is_half_the_squared_difference_at_any_temperature() -> None:
    divergence = keypoints().likelihood.divergence
    student, teacher = torch.randn(2, 4, *keypoints().answer)
    expected = ((student - teacher) ** 2).sum(dim=(1, 2)).mean(dim=1) / (2 * torch.pi)
    for temperature in (0.5, 4.0):
        found = divergence(student, teacher, temperature=temperature)
        torch.testing.assert_close(found, expected)
    assert not divergence(student, student, temperature=1.0).any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), sigma=st.floats(0.6, 2), scale=st.floats(0.01, 100))
def test_a_drawn_heatmap_is_decided_for_its_own_point(
    seed: int, sigma: float, scale: float
) -> None:
    """However hot it is; but at the rim, where a neighbour is missing, to half a cell only."""
    task, points = keypoints(stride=2, sigma=sigma), drawn(seed, hidden=0)
    answers = np.stack(
        [np.stack([heat(point, 2, sigma) for point in record.numpy()], -1) for record in points]
    )
    decided = task.likelihood.decide(torch.tensor(scale * answers, dtype=torch.float32))
    assert decided[..., 2].eq(1).all()
    away = (decided - points)[..., :2].abs()
    cells = points[..., :2] / 2
    inner = (cells >= 1) & (cells <= torch.tensor([WIDTH / 2 - 1, HEIGHT / 2 - 1]))
    assert away[inner].max() < 2e-2
    assert away.max() <= 1 + 1e-4


@pytest.mark.parametrize("value", [0.0, -3.0, torch.nan, torch.inf])
def test_what_is_decided_lies_in_the_image_whatever_a_model_says(value: float) -> None:
    task, points = keypoints(stride=3), drawn(0)
    answers = torch.full((len(points), *task.answer), value)
    decided = task.likelihood.decide(answers)
    assert decided.isfinite().all()
    assert (decided[..., 0] <= WIDTH).all()
    assert (decided[..., 1] <= HEIGHT).all()
    for score in task.scores:
        tally = score.tally(answers, points)
        assert (tally <= score.totals(points)).all()  # what a server checks


def answered(task: Task, points: Tensor, seed: int, spread: float) -> Tensor:
    """Heatmaps of points that are somewhat off."""
    draws = np.random.default_rng(seed)
    moved = points.numpy()[..., :2] + draws.normal(scale=spread, size=(*points.shape[:2], 2))
    moved = moved.clip(0, [WIDTH, HEIGHT])
    maps = [np.stack([heat(point, 2, 1.0) for point in record], -1) for record in moved]
    return torch.tensor(np.stack(maps), dtype=torch.float32)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), between=st.booleans(), within=st.floats(0.05, 0.6))
def test_scores_are_those_of_numpy(seed: int, between: bool, within: float) -> None:
    reference = {"reference": ("head", "foot")} if between else {}
    task, points = keypoints(stride=2, within=within, **reference), drawn(seed, 12)
    answers = answered(task, points, seed, spread=3.0)
    decided = task.likelihood.decide(answers).double().numpy()
    errors: list[list[float]] = [[] for _ in NAMES]
    for record, found in zip(points.double().numpy(), decided, strict=True):
        seen = record[:, 2] > 0
        if between:
            length = np.linalg.norm(record[0, :2] - record[2, :2]) if seen[[0, 2]].all() else 0
        else:
            length = np.ptp(record[seen, :2], axis=0).max() if seen.any() else 0
        for k in np.flatnonzero(seen) if length > 0 else []:
            errors[k].append(np.linalg.norm(found[k, :2] - record[k, :2]) / length)
    every = np.concatenate(errors)
    pck, nme = (score.of(answers, points) for score in task.scores)
    if not len(every):
        assert pck["pck"] is nme["nme"] is None
        return
    # Lengths of decided points are float32's.
    assert pck["pck"] == pytest.approx(np.mean(every <= within), abs=1e-9)
    assert nme["nme"] == pytest.approx(np.mean(every), rel=1e-5)
    for by_class, each in (("pck_by_class", lambda e: e <= within), ("nme_by_class", lambda e: e)):
        found = {**pck, **nme}[by_class]
        assert [one is None for one in found] == [not one for one in errors]
        expected = [np.mean(each(np.array(one))) for one in errors if one]
        assert [one for one in found if one is not None] == pytest.approx(expected, rel=1e-5)


def test_tallies_of_parts_add_up_and_no_answer_counts_more_than_there_is() -> None:
    task, points = keypoints(), drawn(1, 12)
    answers = torch.randn(len(points), *task.answer)
    for score in task.scores:
        whole = score.tally(answers, points)
        parts = [score.tally(answers[rows], points[rows]) for rows in (slice(5), slice(5, None))]
        torch.testing.assert_close(sum(parts), whole)
        assert whole.dtype == score.counts.dtype
        assert tuple(whole.shape) == score.counts.shape
        assert (whole <= score.totals(points)).all()


def test_the_furthest_corner_is_within_what_a_server_takes() -> None:
    _, nme = keypoints(stride=1).scores
    points = torch.tensor([[[0.0, 0, 1], [WIDTH, HEIGHT, 1], [3, 4, 0]]])
    answers = torch.zeros(1, HEIGHT, WIDTH, len(NAMES))
    answers[:, -1, -1, 0] = answers[:, 0, 0, 1] = 1  # each at the other's corner
    tally, most = nme.tally(answers, points), nme.totals(points)
    assert (tally <= most).all()
    assert tally[0, :2].tolist() == pytest.approx(most[0, :2].tolist(), rel=0.05)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": 0}, "task.stride"),
        ({"within": 0}, "task.within"),
        ({"sigma": -1}, "task.sigma"),
        ({"reference": ("head", "hans")}, "task.reference: unknown point 'hans'"),
        ({"reference": ("hand", "hand")}, "task.reference names 'hand' twice"),
    ],
)
def test_what_does_not_suit_is_refused_in_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as found:
        keypoints(**options)
    assert len(str(found.value).splitlines()) == 1


def test_records_that_are_no_images_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"finds points in images .* choose task 'regression'"):
        tasks.build(TaskChoice(name="keypoints"), inputs=(7,), names=NAMES)
