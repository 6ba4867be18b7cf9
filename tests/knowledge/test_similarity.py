from functools import partial

import pytest
import relation_oracles as oracles
import torch
from agreement import Loss, Oracle, Shapes, assert_agrees, fresh, rotation
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.knowledge import similarity

SHARP = {"gamma": 0.9, "order": 4}
CASES: list[tuple[Loss, Oracle]] = [
    (similarity.similarity, oracles.similarity),
    (similarity.pkt, oracles.pkt),
    (similarity.congruence, partial(oracles.congruence, gamma=0.4, order=2)),
    (partial(similarity.neighbourhood, temperature=0.4), partial(oracles.neighbourhood, tau=0.4)),
    (partial(similarity.congruence, **SHARP), partial(oracles.congruence, **SHARP)),
]
LOSSES = [loss for loss, _ in CASES]
SHAPES: list[Shapes] = [[(4, 3), (4, 5)], [(3, 2, 2, 1), (3, 2)]]


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize(("loss", "oracle"), CASES)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_value_and_gradient_are_the_formula_s(
    loss: Loss, oracle: Oracle, shapes: Shapes, seed: int
) -> None:
    assert_agrees(loss, oracle, shapes, seed)


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), scale=st.floats(0.01, 100))
def test_a_rotation_and_a_scale_of_either_side_are_not_seen(
    loss: Loss, seed: int, scale: float
) -> None:
    student, teacher = (each.detach() for each in fresh([(5, 3), (5, 4)], seed))
    value = loss(student, teacher)
    torch.testing.assert_close(loss(scale * student @ rotation(3, seed), teacher), value)
    torch.testing.assert_close(loss(student, scale * teacher @ rotation(4, seed)), value)


@pytest.mark.parametrize("loss", LOSSES)
def test_agreement_is_zero_and_nothing_else(loss: Loss) -> None:
    student, teacher = (each.detach() for each in fresh([(5, 3), (5, 4)], 5))
    assert (loss(student, teacher) > 1e-4).all()
    torch.testing.assert_close(loss(student, student @ rotation(3, 1)), torch.zeros(5).double())


@pytest.mark.parametrize("loss", [similarity.pkt, similarity.congruence])
def test_pkt_and_cc_are_blind_to_each_sample_s_own_scale(loss: Loss) -> None:
    student, teacher, scale = (each.detach() for each in fresh([(5, 3), (5, 4), (5, 1)], 2))
    torch.testing.assert_close(loss(student * scale.exp(), teacher), loss(student, teacher))


def test_a_high_order_of_cc_is_the_gaussian_kernel() -> None:
    student, teacher = (each.detach() for each in fresh([(5, 3), (5, 4)], 2))
    kernels = []
    for each in (student, teacher):
        unit = torch.nn.functional.normalize(each, dim=1)
        kernels.append(torch.exp(-0.7 * torch.cdist(unit, unit).square()))
    gaussian = (kernels[0] - kernels[1]).square().mean(dim=1)
    found = similarity.congruence(student, teacher, gamma=0.7, order=20)
    torch.testing.assert_close(found, gaussian)


def test_opposite_samples_have_a_finite_divergence_in_pkt() -> None:
    one = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    apart, together = similarity.pkt(one, one.abs()), similarity.pkt(one.abs(), one)
    assert apart.isfinite().all()
    assert (apart > 1).all()  # the teacher says half, the student next to nothing
    torch.testing.assert_close(together, torch.full((2,), torch.tensor(2.0).log().item() / 2))


@pytest.mark.parametrize("loss", LOSSES)
def test_batches_that_differ_and_missing_features_are_named(loss: Loss) -> None:
    with pytest.raises(ValueError, match=r"batches differ: student \(3, 4\), teacher \(2, 4\)"):
        loss(torch.zeros(3, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"expected features \(N, ...\): found student \(3,\)"):
        loss(torch.zeros(3), torch.zeros(3, 4))


def test_numbers_out_of_range_are_named() -> None:
    x = torch.zeros(3, 4)
    with pytest.raises(ValueError, match="gamma=0 > 0"):
        similarity.congruence(x, x, gamma=0)
    with pytest.raises(ValueError, match="order=0 > 0"):
        similarity.congruence(x, x, order=0)
