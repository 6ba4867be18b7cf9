import pytest
import relation_oracles as oracles
import torch
from agreement import Loss, Oracle, Shapes, assert_agrees, fresh, rotation
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.knowledge import relation

TUPLES = [[0, 1, 2, 3], [3, 1, 0, 0], [2, 2, 1, 0]]


def spread(points: Tensor) -> Tensor:
    return (points - points[:, :1]).square().sum(dim=(1, 2))


def areas(student: Tensor, teacher: Tensor) -> Tensor:
    return relation.relation(student, teacher, torch.tensor(TUPLES), potential=spread)


def areas_oracle(student: oracles.Array, teacher: oracles.Array) -> oracles.Array:
    return oracles.areas(student, teacher, TUPLES)


CASES: list[tuple[Loss, Oracle, Shapes]] = [
    (relation.distance, oracles.distance, [(4, 3), (4, 5)]),
    (relation.distance, oracles.distance, [(5, 2, 1, 1), (5, 2)]),
    (relation.angle, oracles.angle, [(4, 3), (4, 2)]),
    (relation.angle, oracles.angle, [(3, 2, 1, 1), (3, 2)]),
    (areas, areas_oracle, [(4, 2), (4, 3)]),
]


@pytest.mark.parametrize(("loss", "oracle", "shapes"), CASES)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_value_and_gradient_are_the_formula_s(
    loss: Loss, oracle: Oracle, shapes: Shapes, seed: int
) -> None:
    assert_agrees(loss, oracle, shapes, seed)


@pytest.mark.parametrize("loss", [relation.distance, relation.angle])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_a_shift_a_rotation_and_a_scale_of_either_side_are_not_seen(
    loss: Loss, seed: int, scale: float, shift: float
) -> None:
    student, teacher = (each.detach() for each in fresh([(5, 3), (5, 4)], seed))
    value = loss(student, teacher)
    moved = scale * student @ rotation(3, seed) + shift
    torch.testing.assert_close(loss(moved, teacher), value)
    torch.testing.assert_close(loss(student, scale * teacher @ rotation(4, seed) + shift), value)
    torch.testing.assert_close(loss(student, moved), torch.zeros(5).double())


@pytest.mark.parametrize("loss", [relation.distance, relation.angle])
def test_disagreement_is_not_zero(loss: Loss) -> None:
    student, teacher = (each.detach() for each in fresh([(5, 3), (5, 4)], 5))
    assert (loss(student, teacher) > 1e-3).all()


def test_the_general_form_on_all_pairs_and_triples_is_distance_and_angle() -> None:
    student, teacher = (each.detach() for each in fresh([(4, 3), (4, 5)], 7))
    index = torch.arange(4)
    pairs = torch.cartesian_prod(index, index)
    found = relation.relation(student, teacher, pairs, potential=relation.pair_distance)
    torch.testing.assert_close(found.view(4, 4).mean(1), relation.distance(student, teacher))
    triples = torch.cartesian_prod(index, index, index)
    found = relation.relation(student, teacher, triples, potential=relation.triplet_cosine)
    torch.testing.assert_close(found.view(4, 16).mean(1), relation.angle(student, teacher))


def test_a_potential_may_have_several_relations_a_tuple() -> None:
    student, teacher = (each.detach() for each in fresh([(4, 3), (4, 3)], 7))
    found = relation.relation(
        student, teacher, torch.tensor([[0, 1], [2, 3]]), potential=lambda p: p[:, 0] - p[:, 1]
    )
    gaps = (student - teacher)[[0, 2]] - (student - teacher)[[1, 3]]
    huber = torch.where(gaps.abs() < 1, gaps.square() / 2, gaps.abs() - 0.5).mean(dim=1)
    torch.testing.assert_close(found, huber)


@pytest.mark.parametrize("loss", [relation.distance, relation.angle, areas])
def test_batches_that_differ_are_named(loss: Loss) -> None:
    with pytest.raises(ValueError, match=r"batches differ: student \(5, 4\), teacher \(4, 4\)"):
        loss(torch.zeros(5, 4), torch.zeros(4, 4))


def test_tuples_and_potentials_that_do_not_fit_are_named() -> None:
    x, pairs = torch.zeros(3, 4), torch.tensor([[0, 1], [1, 2]])
    with pytest.raises(ValueError, match=r"tuples \(2,\) of torch.int64: expected integers"):
        relation.relation(x, x, pairs[0], potential=spread)
    with pytest.raises(ValueError, match=r"tuples \(2, 2\) of torch.float32: expected integers"):
        relation.relation(x, x, pairs.float(), potential=spread)
    with pytest.raises(ValueError, match=r"potentials \(\), \(\): expected the same \(2, ...\)"):
        relation.relation(x, x, pairs, potential=torch.sum)
    with pytest.raises(ValueError, match=r"potentials \(1, 4\), \(1, 4\): expected the same"):
        relation.relation(x, x, pairs, potential=lambda points: points[:1, 0])
    with pytest.raises(ValueError, match=r"potentials \(2, 4\), \(2, 3\): expected the same"):
        relation.relation(x, x[:, :3], pairs, potential=lambda points: points[:, 0])
