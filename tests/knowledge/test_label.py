import math
from functools import partial

import label_oracles as oracles
import pytest
import torch
from agreement import Loss, Oracle, assert_agrees, fresh
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.knowledge import dist, label

Y = [0, 3, 1, 2, 0]
WEIGHTS = {"temperature": 2.0, "alpha": 0.7, "beta": 3.0}


def dkd(student: Tensor, teacher: Tensor) -> Tensor:
    return label.dkd(student, teacher, torch.tensor(Y), **WEIGHTS)


PAIRS: list[tuple[Loss, Oracle]] = [
    (partial(label.jsd, temperature=0.7), partial(oracles.jsd, temperature=0.7)),
    (partial(label.jsd, temperature=4.0), partial(oracles.jsd, temperature=4.0)),
    (dkd, partial(oracles.dkd, target=Y, **WEIGHTS)),
    (dist.pearson_distance, oracles.pearson_distance),
    (partial(dist.inter_class, temperature=2.0), partial(oracles.inter_class, temperature=2.0)),
    (partial(dist.intra_class, temperature=2.0), partial(oracles.intra_class, temperature=2.0)),
]
LOSSES = [loss for loss, _ in PAIRS]


@pytest.mark.parametrize(("loss", "oracle"), PAIRS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_value_and_gradient_are_the_formula_s(loss: Loss, oracle: Oracle, seed: int) -> None:
    assert_agrees(loss, oracle, [(5, 4), (5, 4)], seed)


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), shift=st.floats(-20, 20))
def test_agreement_is_zero_and_a_shift_of_either_side_s_logits_is_not_seen(
    loss: Loss, seed: int, shift: float
) -> None:
    student, teacher = (each.detach() for each in fresh([(5, 4), (5, 4)], seed))
    value = loss(student, teacher)
    torch.testing.assert_close(loss(student, student), torch.zeros_like(value))
    torch.testing.assert_close(loss(student + shift, teacher - 2 * shift), value)


@pytest.mark.parametrize("loss", LOSSES)
def test_disagreement_is_not_zero(loss: Loss) -> None:
    student, teacher = (each.detach() for each in fresh([(5, 4), (5, 4)], 5))
    assert (loss(student, teacher) > 1e-3).all()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), temperature=st.floats(0.2, 20))
def test_kd_is_the_target_s_part_and_the_others_weighted_by_the_teacher_s_doubt(
    seed: int, temperature: float
) -> None:
    student, teacher = (each.detach() for each in fresh([(5, 4), (5, 4)], seed))
    y = torch.tensor(Y)
    part = partial(label.dkd, student, teacher, y, temperature=temperature)
    doubt = 1 - (teacher / temperature).softmax(dim=1)[range(5), y]
    whole = part(alpha=1.0, beta=0.0) + doubt * part(alpha=0.0, beta=1.0)
    torch.testing.assert_close(label.kd(student, teacher, temperature=temperature), whole)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), scale=st.floats(0.1, 10), shift=st.floats(-10, 10))
def test_a_pearson_distance_is_blind_to_scale_and_shift_and_two_for_opposites(
    seed: int, scale: float, shift: float
) -> None:
    student, teacher = (each.detach() for each in fresh([(5, 4), (5, 4)], seed))
    value = dist.pearson_distance(student, teacher)
    torch.testing.assert_close(dist.pearson_distance(scale * student + shift, teacher), value)
    opposites = dist.pearson_distance(student, shift - scale * student)
    torch.testing.assert_close(opposites, torch.full((5,), 2.0).double())


def test_jsd_is_symmetric_and_at_most_log_two() -> None:
    student, teacher = (each.detach() for each in fresh([(5, 4), (5, 4)], 1))
    jsd = partial(label.jsd, temperature=2.0)
    torch.testing.assert_close(jsd(student, teacher), jsd(teacher, student))
    opposed = jsd(1e4 * torch.eye(2), 1e4 * torch.eye(2).flip(0))
    torch.testing.assert_close(opposed, torch.full((2,), 4 * math.log(2)))


def test_intra_class_has_a_value_for_each_class() -> None:
    student, teacher = fresh([(5, 3), (5, 3)], 1)
    assert dist.intra_class(student, teacher).shape == (3,)


@pytest.mark.parametrize("loss", LOSSES)
def test_sure_opposed_and_constant_models_give_finite_values_and_gradients(loss: Loss) -> None:
    student = torch.zeros(5, 4)
    student[0, 0] = student[1, 3] = 1e4
    teacher = student.roll(1, dims=1)
    tensors = [student.requires_grad_(), teacher.detach().requires_grad_()]
    value = loss(*tensors)
    slopes = torch.autograd.grad(value.sum(), tensors)
    assert all(each.isfinite().all() for each in (value, *slopes))


@pytest.mark.parametrize("loss", LOSSES)
def test_unlike_shapes_are_both_named(loss: Loss) -> None:
    with pytest.raises(ValueError, match=r"\(5, 4\).*\(5, 3\)"):
        loss(torch.zeros(5, 4), torch.zeros(5, 3))


@pytest.mark.parametrize("loss", [label.jsd, dist.inter_class, dist.intra_class])
def test_a_temperature_that_is_not_positive_is_named(loss: Loss) -> None:
    with pytest.raises(ValueError, match="temperature=0 > 0"):
        loss(torch.zeros(5, 4), torch.zeros(5, 4), temperature=0)


def test_dkd_names_what_it_cannot_use() -> None:
    logits, y, dkd = torch.zeros(5, 4), torch.tensor(Y), partial(label.dkd, temperature=1.0)
    with pytest.raises(ValueError, match=r"target \(4,\): expected \(5,\)"):
        dkd(logits, logits, y[:4])
    with pytest.raises(ValueError, match=r"target is torch.float32: expected integers"):
        dkd(logits, logits, y.float())
    with pytest.raises(ValueError, match=r"\(5, 1\): expected \(\.\.\., C\) with C at least 2"):
        dkd(logits[:, :1], logits[:, :1], y)
    with pytest.raises(ValueError, match=r"temperature=-1\.0 > 0"):
        label.dkd(logits, logits, y, temperature=-1.0)
