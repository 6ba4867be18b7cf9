from functools import partial

import graph_oracles as oracles
import numpy as np
import pytest
import torch
from agreement import Array, Loss, Oracle, Shapes, assert_agrees, fresh, rotation
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedkd.knowledge import graph

WEIGHTS = [[0, 1, 2, 0], [1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1]]
GIVEN = torch.tensor(WEIGHTS)
ONES = np.ones((4, 4))
FEATURES: Shapes = [(4, 3), (4, 5)]
LAYERS: Shapes = [(4, 3), (4, 2), (4, 2, 2, 1), (4, 1), (4, 5), (4, 2)]


def layered(loss: Loss, given: Tensor | None) -> Loss:
    return lambda *features: loss(features[:3], features[3:], graph=given)


def layered_oracle(oracle: Oracle, given: Array) -> Oracle:
    return lambda *features: oracle(features[:3], features[3:], given)


CASES: list[tuple[Loss, Oracle, Shapes]] = [
    (graph.nodes, oracles.nodes, [(4, 3), (4, 3)]),
    (graph.nodes, oracles.nodes, [(4, 2, 2, 1), (4, 2, 2, 1)]),
    (graph.batch_edges, oracles.batch_edges, [(4, 3)]),
    (graph.edges, partial(oracles.edges, graph=ONES), [(4, 4), (4, 4)]),
    (partial(graph.edges, graph=GIVEN), partial(oracles.edges, graph=WEIGHTS), [(4, 4), (4, 4)]),
    (partial(graph.neighbours, graph=GIVEN), partial(oracles.neighbours, graph=WEIGHTS), FEATURES),
    (layered(graph.layers, None), layered_oracle(oracles.layers, ONES), LAYERS),
    (layered(graph.layers, GIVEN), layered_oracle(oracles.layers, WEIGHTS), LAYERS),
    (layered(graph.transitions, None), layered_oracle(oracles.transitions, ONES), LAYERS),
    (layered(graph.transitions, GIVEN), layered_oracle(oracles.transitions, WEIGHTS), LAYERS),
]


@pytest.mark.parametrize(("loss", "oracle", "shapes"), CASES)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_value_and_gradient_are_the_formula_s(
    loss: Loss, oracle: Oracle, shapes: Shapes, seed: int
) -> None:
    assert_agrees(loss, oracle, shapes, seed)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_edges_and_neighbours_are_blind_to_shift_rotation_and_scale(
    seed: int, scale: float, shift: float
) -> None:
    student, teacher = (each.detach() for each in fresh([(4, 3), (4, 5)], seed))
    moved = scale * student @ rotation(3, seed) + shift
    torch.testing.assert_close(graph.batch_edges(moved), graph.batch_edges(student))
    value = graph.neighbours(student, teacher, GIVEN)
    torch.testing.assert_close(graph.neighbours(moved, teacher, GIVEN), value)
    torch.testing.assert_close(graph.neighbours(student, moved, GIVEN), torch.zeros(4).double())


def test_agreement_is_zero_and_nothing_else() -> None:
    student, teacher = (each.detach() for each in fresh([(4, 4), (4, 4)], 5))
    for loss in (graph.nodes, graph.edges):
        assert loss(student, student).tolist() == [0] * 4
        assert (loss(student, teacher) > 0).all()
    assert (graph.neighbours(student, teacher, GIVEN)[[0, 1, 3]] > 1e-4).all()
    for loss in (graph.layers, graph.transitions):
        models = [student, teacher], [teacher, student]
        assert loss(models[0], models[0]).abs().max() == 0
        assert (loss(*models) > 0).all()


def test_transitions_ask_for_the_change_and_not_for_the_graph() -> None:
    student, teacher = (each.detach() for each in fresh([(4, 3), (4, 5)], 5))
    still = [student, 2 * student], [teacher, 3 * teacher]  # neither graph changes
    torch.testing.assert_close(graph.transitions(*still), torch.zeros(1, 4).double())
    assert (graph.layers(*still) > 0).all()


def test_what_is_not_an_edge_does_not_count() -> None:
    student, teacher = (each.detach() for each in fresh([(4, 4), (4, 4)], 5))
    other = torch.where(GIVEN > 0, student, 9.0)
    found = graph.edges(other, teacher, graph=GIVEN)
    torch.testing.assert_close(found, graph.edges(student, teacher, graph=GIVEN))
    assert graph.edges(student, teacher, graph=torch.zeros(4, 4)).tolist() == [0] * 4


def test_a_node_without_neighbours_has_no_loss_and_finite_gradients() -> None:
    student, teacher = fresh([(4, 3), (4, 5)], 5)
    lonely = torch.zeros(4, 4, dtype=torch.bool)
    lonely[0, 1] = lonely[0, 2] = lonely[1, 0] = True
    value = graph.neighbours(student, teacher, lonely)
    assert value[0] > 0
    assert value[1:].tolist() == [0] * 3
    slopes = torch.autograd.grad(value.sum(), [student, teacher])
    assert all(each.isfinite().all() for each in slopes)


def test_what_does_not_match_is_named() -> None:
    x, square = torch.zeros(3, 4), torch.zeros(3, 3)
    with pytest.raises(ValueError, match=r"student \(3, 4\), teacher \(3, 3\)"):
        graph.nodes(x, square)
    with pytest.raises(ValueError, match=r"student \(3, 4\): expected \(3, 3\)"):
        graph.edges(x, x)
    with pytest.raises(ValueError, match=r"graph \(3, 4\): expected \(3, 3\)"):
        graph.edges(square, square, graph=x)
    with pytest.raises(ValueError, match=r"graph \(3, 4\): expected \(3, 3\)"):
        graph.neighbours(x, x, x)
    with pytest.raises(ValueError, match=r"batches differ"):
        graph.neighbours(x, x[:2], square)
    with pytest.raises(ValueError, match=r"expected features \(N, ...\): found features \(3,\)"):
        graph.batch_edges(x[:, 0])


def test_layers_that_do_not_match_are_named() -> None:
    x = torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"1 layers of the student, 2 of the teacher"):
        graph.layers([x], [x, x])
    with pytest.raises(ValueError, match=r"expected as many, at least 1"):
        graph.layers([], [])
    with pytest.raises(ValueError, match=r"expected as many, at least 2"):
        graph.transitions([x], [x])
    with pytest.raises(ValueError, match=r"student_0 \(3, 4\), teacher_1 \(2, 4\)"):
        graph.layers([x, x], [x, x[:2]])
