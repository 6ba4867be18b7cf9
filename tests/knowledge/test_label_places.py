"""Label losses at many places a record: (N, C), (N, T, C), (N, H, W, C), of which some count."""

from collections.abc import Callable
from functools import partial

import label_oracles as oracles
import loss_oracles
import numpy as np
import pytest
import torch
from agreement import Array, Loss, assert_agrees, fresh
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.knowledge import dist, label

T = 1.7
KNOBS = {"temperature": T, "alpha": 0.7, "beta": 3.0}
LEADING = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)
SHAPES = [(4, 3), (2, 3, 3), (2, 1, 2, 3)]


def classes(leading: tuple[int, ...]) -> Tensor:
    """A true class for each place."""
    return torch.arange(int(np.prod(leading))).reshape(leading) % 3


def counting(leading: tuple[int, ...]) -> Tensor:
    """Which places count: not the second, nor any third after it."""
    return (torch.arange(int(np.prod(leading))) % 3 != 1).reshape(leading)


def dkd(student: Tensor, teacher: Tensor, *, where: Tensor | None = None) -> Tensor:
    target = classes(tuple(student.shape[:-1]))
    if where is not None and where.shape == target.shape:
        target = torch.where(where != 0, target, -100)  # as padding is marked
    return label.dkd(student, teacher, target, where=where, **KNOBS)


Rows = Callable[[Array, Array, list[int]], Array]
LOSSES: dict[str, tuple[Loss, Rows]] = {
    "kd": (partial(label.kd, temperature=T), lambda s, t, _: loss_oracles.kd(s, t, T)),
    "jsd": (partial(label.jsd, temperature=T), lambda s, t, _: oracles.jsd(s, t, T)),
    "mae": (label.mae, lambda s, t, _: loss_oracles.mae(s, t)),
    "soft": (
        label.soft_cross_entropy,
        lambda s, t, _: loss_oracles.soft_cross_entropy(s, t),
    ),
    "dkd": (dkd, lambda s, t, y: oracles.dkd(s, t, y, T, KNOBS["alpha"], KNOBS["beta"])),
    "pearson": (dist.pearson_distance, lambda s, t, _: oracles.pearson_distance(s, t)),
    "inter": (
        partial(dist.inter_class, temperature=T),
        lambda s, t, _: oracles.inter_class(s, t, T),
    ),
}
INTRA = partial(dist.intra_class, temperature=T)


def rows(array: Array, kept: Tensor) -> Array:
    return array.reshape(-1, array.shape[-1])[kept.flatten().numpy()]


@pytest.mark.parametrize("some", [False, True], ids=["all count", "some count"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_each_place_has_the_formulas_value_and_gradient_and_zero_where_it_does_not_count(
    name: str, shape: tuple[int, ...], some: bool
) -> None:
    loss, oracle = LOSSES[name]
    where = counting(shape[:-1]) if some else torch.ones(shape[:-1], dtype=torch.bool)
    y = classes(shape[:-1])[where].tolist()

    def of_places(student: Array, teacher: Array) -> Array:
        values = np.zeros(where.numel(), dtype=np.complex128)
        values[where.flatten().numpy()] = oracle(rows(student, where), rows(teacher, where), y)
        return values.reshape(shape[:-1])

    kept = partial(loss, where=where) if some else loss
    assert_agrees(kept, of_places, [shape, shape], seed=3)


@pytest.mark.parametrize("some", [False, True], ids=["all count", "some count"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_intra_class_correlates_a_class_over_all_places_that_count(
    shape: tuple[int, ...], some: bool
) -> None:
    where = counting(shape[:-1]) if some else torch.ones(shape[:-1], dtype=torch.bool)
    assert_agrees(
        partial(INTRA, where=where) if some else INTRA,
        lambda s, t: oracles.intra_class(rows(s, where), rows(t, where), T),
        [shape, shape],
        seed=3,
    )


@pytest.mark.parametrize("name", [*LOSSES, "intra"])
def test_nothing_comes_from_a_place_that_does_not_count_not_even_nan(name: str) -> None:
    loss = INTRA if name == "intra" else LOSSES[name][0]
    student, teacher = (each.detach() for each in fresh([(2, 3, 3), (2, 3, 3)], 5))
    where = counting((2, 3))
    clean = loss(student, teacher, where=where)
    student[~where], teacher[~where] = torch.nan, torch.inf
    student.requires_grad_()
    value = loss(student, teacher, where=where)
    torch.testing.assert_close(value, clean)
    (slope,) = torch.autograd.grad(value.sum(), student)
    assert slope.isfinite().all()
    assert slope[where].any()
    assert not slope[~where].any()
    nowhere = loss(student, teacher, where=torch.zeros(2, 3, dtype=torch.bool))
    torch.testing.assert_close(nowhere, torch.full_like(nowhere, T**2 if name == "intra" else 0))


@pytest.mark.parametrize("name", [*LOSSES, "intra"])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    leading=LEADING,
    axis=st.integers(0, 3),
    dropped=st.booleans(),
)
def test_wrong_ranks_are_refused_with_their_shapes(
    name: str, leading: tuple[int, ...], axis: int, dropped: bool
) -> None:
    loss = INTRA if name == "intra" else LOSSES[name][0]
    student = torch.zeros(*leading, 3)
    axis = min(axis, len(leading))
    other = student.select(min(axis, len(leading) - 1), 0) if dropped else student.unsqueeze(axis)
    shown = str(tuple(other.shape)).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=shown):
        loss(student, other)
    everywhere = torch.ones(other.shape[:-1], dtype=torch.bool)
    with pytest.raises(ValueError, match=r"where \(.*\): expected \("):
        loss(student, student, where=everywhere)
    with pytest.raises(ValueError, match=r"where is torch\.float32: expected bool"):
        loss(student, student, where=torch.ones(leading))


@pytest.mark.parametrize("name", [*LOSSES, "intra"])
def test_logits_of_one_axis_are_refused(name: str) -> None:
    loss = INTRA if name == "intra" else LOSSES[name][0]
    with pytest.raises(ValueError, match=r"expected \(\.\.\., C\), .*found .*\(3,"):
        loss(torch.zeros(3), torch.zeros(3))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(leading=LEADING, axis=st.integers(0, 3))
def test_dkd_refuses_classes_of_another_rank(leading: tuple[int, ...], axis: int) -> None:
    logits, y = torch.zeros(*leading, 3), torch.zeros(leading, dtype=torch.long)
    for wrong in (y.unsqueeze(min(axis, y.dim())), y[0]):
        with pytest.raises(ValueError, match=r"target \(.*\): expected \("):
            label.dkd(logits, logits, wrong, temperature=1.0)
