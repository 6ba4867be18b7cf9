from functools import partial

import feature_oracles as oracles
import pytest
import torch
from agreement import Loss, Oracle, Shapes, assert_agrees, fresh
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.knowledge import feature


def mixing(weight: Tensor) -> Loss:
    return lambda features: torch.einsum("nc...,cd->nd...", features, weight)


def hint(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    return feature.hint(student, teacher, regressor=mixing(weight))


def vid(student: Tensor, teacher: Tensor, weight: Tensor, raw: Tensor) -> Tensor:
    return feature.vid(student, teacher, regressor=mixing(weight), raw_variance=raw)


def identity(features: Tensor) -> Tensor:
    return features


NARROW, WIDE = (3, 2, 2, 3), (3, 4, 2, 3)
CASES: list[tuple[Loss, Oracle, Shapes]] = [
    (hint, oracles.hint, [(4, 3), (4, 2), (3, 2)]),
    (hint, oracles.hint, [NARROW, WIDE, (2, 4)]),
    (feature.angular, oracles.angular, [NARROW, NARROW]),
    (feature.attention, partial(oracles.attention, power=2.0), [NARROW, WIDE]),
    (partial(feature.attention, power=3), partial(oracles.attention, power=3), [NARROW, WIDE]),
    (feature.selectivity, oracles.selectivity, [NARROW, WIDE]),
    (feature.factor, oracles.factor, [NARROW, NARROW]),
    (feature.factor, oracles.factor, [(4, 5), (4, 5)]),
    (feature.boundary, partial(oracles.boundary, margin=1.0), [NARROW, NARROW]),
    (partial(feature.boundary, margin=3), partial(oracles.boundary, margin=3), [(4, 5), (4, 5)]),
    (vid, oracles.vid, [(4, 3), (4, 2), (3, 2), (2,)]),
    (vid, oracles.vid, [NARROW, WIDE, (2, 4), (4,)]),
]
SAME = partial(feature.hint, regressor=identity)
SCALE_FREE = [feature.attention, feature.selectivity, feature.factor]


@pytest.mark.parametrize(("loss", "oracle", "shapes"), CASES)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_value_and_gradient_are_the_formula_s(
    loss: Loss, oracle: Oracle, shapes: Shapes, seed: int
) -> None:
    assert_agrees(loss, oracle, shapes, seed)


@pytest.mark.parametrize("loss", [SAME, *SCALE_FREE])
def test_agreement_is_zero_and_nothing_else(loss: Loss) -> None:
    student, teacher = (each.detach() for each in fresh([NARROW, NARROW], 5))
    torch.testing.assert_close(loss(student, student), torch.zeros(3).double())
    assert (loss(student, teacher) > 1e-3).all()


@pytest.mark.parametrize("loss", SCALE_FREE)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), scale=st.floats(1e-3, 1e3))
def test_scale_of_either_side_is_not_seen(loss: Loss, seed: int, scale: float) -> None:
    student, teacher = (each.detach() for each in fresh([NARROW, NARROW], seed))
    value = loss(student, teacher)
    torch.testing.assert_close(loss(scale * student, teacher), value)
    torch.testing.assert_close(loss(student, scale * teacher), value)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), order=st.permutations(range(4)))
def test_at_and_nst_are_blind_to_channels_order_and_sign(seed: int, order: list[int]) -> None:
    student, teacher = (each.detach() for each in fresh([NARROW, WIDE], seed))
    sign = torch.tensor([1.0, -1, -1, 1]).double()[:, None, None]
    for loss in (feature.attention, feature.selectivity):
        value = loss(student, teacher)
        torch.testing.assert_close(loss(student, sign * teacher[:, order]), value)


def test_ab_is_zero_on_the_teacher_s_side_by_the_margin_and_blind_to_the_teacher_s_size() -> None:
    student, teacher = (each.detach() for each in fresh([(4, 5), (4, 5)], 3))
    assert feature.boundary(1.5 * teacher.sign(), teacher).tolist() == [0] * 4
    value = feature.boundary(student, teacher)
    assert (value > 0).all()
    torch.testing.assert_close(feature.boundary(student, 7 * teacher), value)


def test_vid_is_least_where_means_agree_and_starts_at_the_asked_variance() -> None:
    student, teacher = (each.detach() for each in fresh([(4, 5), (4, 5)], 3))
    raw = feature.raw_variance(5, variance=4.0).double()
    found = partial(feature.vid, teacher=teacher, regressor=identity, raw_variance=raw)
    gap = (student - teacher).square().mean(dim=1) / 2 / 4  # the quadratic part alone
    torch.testing.assert_close(found(student) - found(teacher), gap, rtol=1e-5, atol=1e-7)
    assert feature.raw_variance(2, variance=1e4).tolist() == pytest.approx([1e4] * 2)


def test_same_size_pools_the_larger_map_by_its_means() -> None:
    student, teacher = torch.arange(16.0).view(1, 1, 4, 4), torch.ones(1, 3, 2, 4)
    pooled, kept = feature.same_size(student, teacher)
    assert pooled.tolist() == [[[[2, 3, 4, 5], [10, 11, 12, 13]]]]
    assert kept.equal(teacher)
    feature.attention(pooled, kept)


@pytest.mark.parametrize("loss", [feature.attention, feature.selectivity])
def test_maps_that_do_not_match_are_named(loss: Loss) -> None:
    with pytest.raises(ValueError, match=r"maps differ: student \(3, 2, 2, 3\).*\(3, 2, 3, 2\)"):
        loss(torch.zeros(NARROW), torch.zeros(3, 2, 3, 2))
    with pytest.raises(ValueError, match=r"\(N, C, H, W\): found student \(3, 2\)"):
        loss(torch.zeros(3, 2), torch.zeros(3, 2))


def test_what_else_does_not_match_is_named() -> None:
    x, y, raw = torch.zeros(3, 4), torch.zeros(3, 2), torch.zeros(4)
    with pytest.raises(ValueError, match=r"regressed \(3, 4\), teacher \(3, 2\)"):
        SAME(x, y)
    with pytest.raises(ValueError, match=r"batches differ: student \(3, 4\), teacher \(2, 4\)"):
        SAME(x, x[:2])
    with pytest.raises(ValueError, match=r"regressed \(3, 4\), teacher \(3, 2\)"):
        feature.vid(x, y, regressor=identity, raw_variance=raw)
    with pytest.raises(ValueError, match=r"raw_variance \(4,\): expected \(2,\)"):
        feature.vid(y, y, regressor=identity, raw_variance=raw)
    for loss in (feature.factor, feature.boundary):
        with pytest.raises(ValueError, match=r"student \(3, 4\), teacher \(3, 2\)"):
            loss(x, y)
        with pytest.raises(ValueError, match=r"expected features \(N, ...\)"):
            loss(raw, raw)
    with pytest.raises(ValueError, match=r"batches differ"):
        feature.same_size(torch.zeros(NARROW), torch.zeros(NARROW)[:1])
    with pytest.raises(ValueError, match=r"expected feature maps"):
        feature.same_size(torch.zeros(NARROW), torch.zeros(3, 2))


def test_numbers_out_of_range_are_named() -> None:
    maps = torch.zeros(NARROW)
    with pytest.raises(ValueError, match=r"power=0.5 >= 1"):
        feature.attention(maps, maps, power=0.5)
    with pytest.raises(ValueError, match=r"margin=-1 >= 0"):
        feature.boundary(maps, maps, margin=-1)
    with pytest.raises(ValueError, match=r"variance=0 > 1e-05"):
        feature.raw_variance(2, variance=0)
