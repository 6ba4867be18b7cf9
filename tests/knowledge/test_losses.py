import math
from functools import partial

import loss_oracles as oracles
import pytest
import torch
from agreement import Loss, Oracle, Shapes, assert_agrees, fresh
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.knowledge import label, synthetic


def bn_statistics(mean: Tensor, variance: Tensor, running_mean: Tensor, running: Tensor) -> Tensor:
    return synthetic.bn_statistics([mean], [variance], [running_mean], [running])


PAIRS: list[tuple[Loss, Oracle]] = [
    (partial(label.kd, temperature=0.7), partial(oracles.kd, temperature=0.7)),
    (partial(label.kd, temperature=4.0), partial(oracles.kd, temperature=4.0)),
    (label.soft_cross_entropy, oracles.soft_cross_entropy),
    (label.mae, oracles.mae),
    (synthetic.competition, oracles.competition),
    (synthetic.disagreement, oracles.disagreement),
]
SINGLES: list[tuple[Loss, Oracle]] = [
    (synthetic.one_hot, oracles.one_hot),
    (synthetic.information_entropy, oracles.information_entropy),
    (synthetic.activation, oracles.activation),
    (synthetic.l2, oracles.l2),
]
CASES = [
    *((loss, oracle, [(5, 4), (5, 4)]) for loss, oracle in PAIRS),
    *((loss, oracle, [(5, 4)]) for loss, oracle in SINGLES),
    (synthetic.activation, oracles.activation, [(2, 3, 2, 2)]),
    (synthetic.l2, oracles.l2, [(2, 3, 2, 2)]),
    (synthetic.total_variation, oracles.total_variation, [(2, 2, 4, 3)]),
    (bn_statistics, oracles.bn_statistics, [(3,)] * 4),
    (synthetic.diversity, oracles.diversity, [(4, 3), (4, 2, 2, 1)]),
]


@pytest.mark.parametrize(("loss", "oracle", "shapes"), CASES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_value_and_gradient_are_the_formula_s(
    loss: Loss, oracle: Oracle, shapes: Shapes, seed: int
) -> None:
    assert_agrees(loss, oracle, shapes, seed)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shift=st.floats(-50, 50),
    temperature=st.floats(0.1, 50),
    order=st.permutations(range(4)),
)
def test_kd_is_zero_on_agreement_and_blind_to_shifts_and_to_the_order_of_classes(
    seed: int, shift: float, temperature: float, order: list[int]
) -> None:
    student, teacher = (t.detach() for t in fresh([(6, 4), (6, 4)], seed, torch.float64))
    kd = partial(label.kd, temperature=temperature)
    torch.testing.assert_close(kd(student + shift, student), torch.zeros(6).double())
    assert (kd(student, teacher) >= -1e-12).all()
    torch.testing.assert_close(kd(student + shift, teacher - shift), kd(student, teacher))
    torch.testing.assert_close(kd(student[:, order], teacher[:, order]), kd(student, teacher))


def test_kd_tends_to_half_the_squared_distance_of_centred_logits() -> None:
    student, teacher = (t.detach() for t in fresh([(6, 4), (6, 4)], 3, torch.float64))
    gap = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    limit = gap.square().mean(dim=1) / 2  # Hinton et al. 2015, section 2.1
    torch.testing.assert_close(
        label.kd(student, teacher, temperature=1e4), limit, rtol=1e-3, atol=1e-6
    )


def test_soft_cross_entropy_of_one_hot_targets_is_cross_entropy() -> None:
    (student,) = fresh([(6, 4)], 0, torch.float64)
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    hard = torch.nn.functional.cross_entropy(student, y, reduction="none")
    soft = label.soft_cross_entropy(student, torch.nn.functional.one_hot(y, 4).double())
    torch.testing.assert_close(soft, hard)


def test_information_entropy_is_least_for_balanced_and_zero_for_one_class() -> None:
    balanced, single = 100 * torch.eye(4), 100 * torch.eye(4)[[0, 0, 0]]
    assert synthetic.information_entropy(balanced).item() == pytest.approx(-math.log(4))
    assert synthetic.information_entropy(single).item() == pytest.approx(0)


def test_competition_ranges_from_one_to_one_minus_log_two() -> None:
    one, other = 100 * torch.eye(2)
    agree, differ = synthetic.competition(torch.stack([one, one]), torch.stack([one, other]))
    assert agree.item() == pytest.approx(1)
    assert differ.item() == pytest.approx(1 - math.log(2))


@pytest.mark.parametrize(
    "loss", [loss for loss, _ in PAIRS if loss is not label.soft_cross_entropy]
)
def test_sure_and_opposed_models_give_finite_values_and_gradients(loss: Loss) -> None:
    student = torch.tensor([[1e4, 0.0], [0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 1e4], [0.0, 0.0]], requires_grad=True)
    value = loss(student, teacher)
    slopes = torch.autograd.grad(value.sum(), [student, teacher])
    assert all(each.isfinite().all() for each in (value, *slopes))


def test_information_entropy_of_a_vanished_class_is_finite() -> None:
    logits = torch.tensor([[1e4, 0.0], [1e4, 0.0]], requires_grad=True)
    value = synthetic.information_entropy(logits)
    value.backward()
    assert value.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_bn_statistics_add_up_over_layers() -> None:
    parts = [fresh([(channels,)] * 4, channels, torch.float64) for channels in (2, 5)]
    together = synthetic.bn_statistics(*zip(*parts, strict=True))
    torch.testing.assert_close(together, bn_statistics(*parts[0]) + bn_statistics(*parts[1]))


@pytest.mark.parametrize("loss", [loss for loss, _ in PAIRS])
def test_unlike_shapes_are_both_named(loss: Loss) -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(3, 5\)"):
        loss(torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(1, 4\)"):
        loss(torch.zeros(3, 4), torch.zeros(1, 4))


@pytest.mark.parametrize("temperature", [0.0, -1.5, math.nan])
def test_a_temperature_that_is_not_positive_is_named(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature={temperature} > 0"):
        label.kd(torch.zeros(3, 4), torch.zeros(3, 4), temperature=temperature)


def test_bn_statistics_name_what_does_not_match() -> None:
    three, four = torch.zeros(3), torch.zeros(4)
    with pytest.raises(ValueError, match="statistics of 1, 1, 2, 1 layers"):
        synthetic.bn_statistics([three], [three], [three, three], [three])
    with pytest.raises(ValueError, match="statistics of 0, 0, 0, 0 layers"):
        synthetic.bn_statistics([], [], [], [])
    with pytest.raises(ValueError, match=r"running_mean \(4,\)"):
        synthetic.bn_statistics([three], [three], [four], [three])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), y=st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_what_is_hard_counts_more_and_its_weight_is_a_constant(seed: int, y: list[int]) -> None:
    [logits] = fresh([(5, 4)], seed)
    target = torch.tensor(y)
    found = synthetic.hard_cross_entropy(logits, target)
    assert found.tolist() == pytest.approx(oracles.hard_cross_entropy(logits.detach().numpy(), y))
    (slope,) = torch.autograd.grad(found.sum(), logits)
    p = logits.detach().softmax(dim=1)
    wanted = (1 - p.gather(1, target[:, None])) * (p - torch.eye(4)[target])
    torch.testing.assert_close(slope, wanted.to(slope.dtype))


def test_diversity_refuses_other_numbers_of_samples() -> None:
    with pytest.raises(ValueError, match="batches differ: z"):
        synthetic.diversity(torch.zeros(3, 2), torch.zeros(4, 2))
