"""Losses that came after the survey of 2022."""

import math
from functools import partial

import newer_oracles as oracles
import numpy as np
import pytest
import torch
from agreement import Loss, Oracle, Shapes, assert_agrees, fresh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance
from torch import Tensor

from fedkd.knowledge import feature, label, logits, similarity, transport

Y = [0, 3, 1, 2, 0]
TARGET = torch.tensor(Y)
ROWS: Shapes = [(5, 4), (5, 4)]
LINE = [[abs(a - b) / 4 for b in range(4)] for a in range(4)]
COSTS = torch.tensor(LINE)
SINKHORN = {"temperature": 2.0, "gamma": 3.0, "regularisation": 0.2, "iterations": 4}
OFA = {"temperature": 2.0, "gamma": 1.4}
OTHERS = TARGET[:, None] != TARGET
MAPS: Shapes = [(2, 2, 4, 4), (2, 2, 4, 4)]


def one_for_all(student: Tensor, teacher: Tensor) -> Tensor:
    return label.one_for_all(student, teacher, TARGET, **OFA)


def discrete(student: Tensor, teacher: Tensor) -> Tensor:
    return transport.discrete(student, teacher, TARGET, COSTS.to(student), **SINKHORN)


CASES: list[tuple[Loss, Oracle, Shapes]] = [
    (
        partial(logits.standardised_kd, temperature=2.0),
        partial(oracles.standardised_kd, temperature=2.0),
        ROWS,
    ),
    (
        partial(logits.instance_level, temperatures=(2.0, 5.0)),
        partial(oracles.instance_level, temperatures=[2.0, 5.0]),
        ROWS,
    ),
    (
        partial(logits.batch_level, temperature=2.0),
        partial(oracles.batch_level, temperature=2.0),
        ROWS,
    ),
    (
        partial(logits.class_level, temperature=2.0),
        partial(oracles.class_level, temperature=2.0),
        ROWS,
    ),
    (one_for_all, partial(oracles.one_for_all, target=Y, **OFA), ROWS),
    (discrete, partial(oracles.discrete, target=Y, costs=LINE, **SINKHORN), ROWS),
    (
        partial(transport.gaussian, ratio=3.0, grid=2),
        partial(oracles.gaussian, ratio=3.0, grid=2),
        [(2, 2, 4, 2), (2, 2, 2, 4)],
    ),
    (feature.hierarchical, oracles.hierarchical, MAPS),
    (
        partial(similarity.contrastive, temperature=0.5, others=OTHERS),
        partial(oracles.contrastive, temperature=0.5, others=OTHERS.tolist()),
        [(5, 3), (5, 3)],
    ),
]
ZERO_WHERE_BOTH_AGREE = [loss for loss, _, shapes in CASES if loss not in (one_for_all, discrete)][
    :-1
]


@pytest.mark.parametrize(("loss", "oracle", "shapes"), CASES)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_value_and_gradient_are_the_formula_s(
    loss: Loss, oracle: Oracle, shapes: Shapes, seed: int
) -> None:
    assert_agrees(loss, oracle, shapes, seed)


GOLDEN = [
    # z-scores are (-1.2247, 0, 1.2247) and its reverse: 4 (.5447 - .1600) 1.2247
    (partial(logits.standardised_kd, temperature=2.0), [[1, 2, 3]], [[9, 6, 3]], [1.8845]),
    (partial(logits.batch_level, temperature=1.0), [[0, 0]], [[100, 0]], [0.25]),
    (partial(logits.class_level, temperature=1.0), [[0, 0]], [[100, 0]], [0.625, 0.125]),
    (partial(similarity.contrastive, temperature=1.0), [[1, 0], [0, 1]], [[1, 0], [0, 1]],
     [2 * math.log1p(math.exp(-1)) + 2 * math.log(2)] * 2),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "student", "teacher", "value"), GOLDEN)
def test_values_worked_out_by_hand(
    loss: Loss, student: list[list[float]], teacher: list[list[float]], value: list[float]
) -> None:
    found = loss(torch.tensor(student).float(), torch.tensor(teacher).float())
    torch.testing.assert_close(found, torch.tensor(value), rtol=1e-4, atol=1e-4)


def test_one_for_all_at_gamma_one_is_cross_entropy_with_the_teacher() -> None:
    student, teacher = (each.detach() for each in fresh(ROWS, 3))
    found = label.one_for_all(student, teacher, TARGET)
    torch.testing.assert_close(found, label.soft_cross_entropy(student, teacher.softmax(dim=1)))


@pytest.mark.parametrize("loss", ZERO_WHERE_BOTH_AGREE)
def test_agreement_is_zero_and_nothing_else(loss: Loss) -> None:
    shapes = next(shapes for each, _, shapes in CASES if each is loss)
    student, teacher = (each.detach() for each in fresh([shapes[0], shapes[0]], 5))
    value = loss(student, teacher)
    torch.testing.assert_close(loss(student, student), torch.zeros_like(value))
    assert (value > 1e-4).all()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), scale=st.floats(0.01, 100), shift=st.floats(-20, 20))
def test_standardised_logits_have_no_scale_and_no_shift(
    seed: int, scale: float, shift: float
) -> None:
    student, teacher = (each.detach() for each in fresh(ROWS, seed))
    loss = partial(logits.standardised_kd, temperature=2.0)
    value = loss(student, teacher)
    torch.testing.assert_close(loss(scale * student + shift, teacher), value)
    torch.testing.assert_close(loss(student, scale * teacher - shift), value)
    shown = logits.standardised(student)
    torch.testing.assert_close(shown.std(dim=1, correction=0), torch.ones(5).double())


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), strength=st.floats(0, 2))
def test_an_adversarial_temperature_is_kd_with_its_gradient_turned(
    seed: int, strength: float
) -> None:
    student, teacher = fresh(ROWS, seed)
    warm, same = (torch.tensor(3.0, dtype=torch.float64, requires_grad=True) for _ in range(2))
    value = logits.adversarial_kd(student, teacher, warm.expand(5), strength=strength)
    torch.testing.assert_close(value, label.kd(student, teacher, temperature=3.0))
    divided = (each / same for each in (student, teacher))
    plain = same.square() * label.kd(*divided, temperature=1.0)
    up, ours = torch.autograd.grad(value.sum(), [warm, student])
    down, theirs = torch.autograd.grad(plain.sum(), [same, student])
    torch.testing.assert_close(up, -strength * down)
    torch.testing.assert_close(ours, theirs)


def test_a_curriculum_goes_from_nothing_to_all_and_stays() -> None:
    strengths = [logits.curriculum_strength(epoch, epochs=4) for epoch in range(7)]
    half = (1 - math.sqrt(0.5)) / 2
    assert np.allclose(strengths, [0, half, 0.5, 1 - half, 1, 1, 1])


@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_with_little_entropy_sinkhorn_finds_the_distance_of_the_others(seed: int) -> None:
    student, teacher = (each.detach() for each in fresh([(1, 5), (1, 5)], seed))
    places = torch.arange(4.0, dtype=torch.float64)
    costs = torch.zeros(5, 5, dtype=torch.float64)
    costs[1:, 1:] = (places[:, None] - places).abs()
    parts = [
        transport.discrete(
            student, teacher, torch.tensor([0]), costs, temperature=1.0, gamma=gamma,
            regularisation=0.05, iterations=300,
        )
        for gamma in (0.0, 1.0)
    ]  # fmt: skip
    q, p = (each[0, 1:].softmax(dim=0).numpy() for each in (student, teacher))
    exact = wasserstein_distance(places.numpy(), places.numpy(), q, p)
    assert float(parts[1] - parts[0]) == pytest.approx(exact, abs=0.03)


def test_it_costs_more_to_be_wrong_by_a_farther_class() -> None:
    costs = transport.class_costs(torch.tensor([[0.0, 1], [1, 0], [1, 0.1], [-1, -1]]))
    teacher = torch.tensor([[0.0, 9, 0, 0]])
    near, far = torch.tensor([[0.0, 0, 9, 0]]), torch.tensor([[0.0, 0, 0, 9]])
    loss = partial(
        transport.discrete, teacher=teacher, target=torch.tensor([0]), costs=costs, temperature=1.0
    )
    assert loss(near) + 0.3 < loss(far)
    assert (costs == costs.T).all()
    assert (costs.diagonal() == 0).all()
    assert ((costs >= 0) & (costs < 1)).all()


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_gaussian_s_distance_does_not_see_where_in_a_cell_a_place_is(seed: int) -> None:
    student, teacher = (each.detach() for each in fresh(MAPS, seed))
    turned = student.flip(2).transpose(2, 3)
    value = transport.gaussian(student, teacher)
    torch.testing.assert_close(transport.gaussian(turned, teacher), value)
    assert not torch.allclose(transport.gaussian(turned, teacher, grid=2), value)


def test_negatives_are_those_that_are_said_and_none_is_nothing() -> None:
    student, teacher = (each.detach() for each in fresh([(5, 3), (5, 3)], 2))
    loss = partial(similarity.contrastive, temperature=0.1)
    assert (loss(student, teacher) > 0).all()
    none = loss(student.requires_grad_(), teacher, others=torch.zeros(5, 5, dtype=torch.bool))
    torch.testing.assert_close(none, torch.zeros(5).double())
    assert torch.autograd.grad(none.sum(), student)[0].isfinite().all()
    paired = loss(teacher, teacher) - loss(teacher.roll(1, dims=0), teacher)
    assert (paired < 0).all()


@pytest.mark.parametrize("loss", [one_for_all, discrete, *[each for each, _, _ in CASES[:4]]])
def test_sure_opposed_and_constant_models_give_finite_values_and_gradients(loss: Loss) -> None:
    student = torch.zeros(5, 4)
    student[0, 0] = student[1, 3] = 1e4
    tensors = [student.requires_grad_(), student.detach().roll(1, dims=1).requires_grad_()]
    value = loss(*tensors)
    slopes = torch.autograd.grad(value.sum(), tensors)
    assert all(each.isfinite().all() for each in (value, *slopes))


def _at_places(loss: Loss, shape: tuple[int, ...], where: Tensor | None) -> Tensor:
    student, teacher = (each.detach().reshape(*shape, 4) for each in fresh([(6, 4)] * 2, 1))
    if where is not None:
        student = torch.where(where[..., None], student, math.nan)
    return loss(student, teacher, where=where)


PLACED: list[Loss] = [
    partial(logits.standardised_kd, temperature=2.0),
    partial(logits.instance_level, temperatures=(2.0,)),
    lambda s, t, where: label.one_for_all(s, t, s.new_ones(s.shape[:-1]).long(), where=where),
    lambda s, t, where: transport.discrete(
        s, t, s.new_ones(s.shape[:-1]).long(), COSTS.to(s), temperature=2.0, where=where
    ),
    lambda s, t, where: logits.adversarial_kd(
        s, t, 3 * s.new_ones(s.shape[:-1]), strength=1.0, where=where
    ),
]


@pytest.mark.parametrize("loss", PLACED)
def test_places_stand_for_themselves_and_those_that_do_not_count_give_nothing(loss: Loss) -> None:
    flat = _at_places(loss, (6,), None)
    torch.testing.assert_close(_at_places(loss, (2, 3), None), flat.reshape(2, 3))
    where = torch.tensor([True, False, True, True, False, True])
    torch.testing.assert_close(_at_places(loss, (6,), where), torch.where(where, flat, 0.0))


@pytest.mark.parametrize("level", [logits.batch_level, logits.class_level])
def test_levels_are_of_the_places_that_count(level: Loss) -> None:
    student, teacher = (each.detach() for each in fresh([(6, 4)] * 2, 1))
    where = torch.tensor([True, False, True, True, False, True])
    found = level(student.reshape(2, 3, 4), teacher.reshape(2, 3, 4), temperature=2.0,
                  where=where.reshape(2, 3))  # fmt: skip
    torch.testing.assert_close(found, level(student[where], teacher[where], temperature=2.0))


def test_what_cannot_be_used_is_named() -> None:
    rows, maps = torch.zeros(5, 4), torch.zeros(2, 3, 4, 4)
    for call, message in [
        (lambda: logits.standardised_kd(rows, rows, temperature=0), "temperature=0 > 0"),
        (lambda: logits.instance_level(rows, rows, temperatures=()), r"temperatures=\(\)"),
        (lambda: logits.class_level(rows, rows[:, :3], temperature=1), r"\(5, 4\).*\(5, 3\)"),
        (lambda: logits.adversarial_kd(rows, rows, torch.ones(4), strength=1), r"\(4,\)"),
        (lambda: logits.adversarial_kd(rows, rows, torch.ones(5), strength=-1), "strength=-1"),
        (lambda: logits.curriculum_strength(-1, epochs=2), "epoch=-1"),
        (lambda: label.one_for_all(rows, rows, TARGET, gamma=0.5), "gamma=0.5 >= 1"),
        (lambda: label.one_for_all(rows, rows, TARGET.float()), "expected integers"),
        (lambda: transport.class_costs(torch.zeros(3)), r"\(3,\): expected \(C, D\)"),
        (lambda: transport.discrete(rows, rows, TARGET, COSTS[:3], temperature=1), r"\(3, 4\)"),
        (lambda: transport.discrete(rows[:, :1], rows[:, :1], TARGET, COSTS, temperature=1),
         "at least 2"),
        (lambda: transport.gaussian(maps, maps[:, :2]), r"of one C: found student \(2, 3"),
        (lambda: transport.gaussian(maps, maps, grid=5), r"grid=5 in \[1, 4\]"),
        (lambda: feature.hierarchical(rows, rows), r"\(N, C, H, W\)"),
        (lambda: similarity.contrastive(rows, rows, temperature=-1), "temperature=-1 > 0"),
        (lambda: similarity.contrastive(rows, rows, temperature=1, others=OTHERS[:2]), r"\(2, 5\)"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()
