"""Losses between the places of one image, as their formulas say in slow loops."""

import numpy as np
import pytest
import torch
from agreement import Array, assert_agrees, fresh, rotation
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_oracles import norm

from fedkd.knowledge import structure

PLACES = [(i, j) for i in range(2) for j in range(3)]


def unit(vector: Array) -> Array:
    return vector / norm(vector)


def pairwise(student: Array, teacher: Array) -> Array:
    values = []
    for s, t in zip(student, teacher, strict=True):
        gaps = [
            sum(unit(s[:, *a]) * unit(s[:, *b])) - sum(unit(t[:, *a]) * unit(t[:, *b]))
            for a in PLACES
            for b in PLACES
        ]
        values.append(sum(gap**2 for gap in gaps) / len(gaps))
    return np.array(values)


def adapted(student: Array, teacher: Array) -> Array:
    gaps = [
        [sum((unit(s[:, *a]) - unit(t[:, *a])) ** 2) for a in PLACES]
        for s, t in zip(student, teacher, strict=True)
    ]
    return np.array([sum(each) / len(each) for each in gaps])


@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_value_and_gradient_are_the_formula_s(seed: int) -> None:
    assert_agrees(structure.pairwise, pairwise, [(2, 3, 2, 3), (2, 4, 2, 3)], seed)
    assert_agrees(structure.adapted, adapted, [(2, 3, 2, 3), (2, 3, 2, 3)], seed)


def test_pairs_are_blind_to_a_rotation_of_features() -> None:
    student, teacher = fresh([(2, 4, 2, 3), (2, 4, 2, 3)], 1)
    turned = torch.einsum("cd,ndhw->nchw", rotation(4, 2), 3 * student)
    expected = structure.pairwise(student, teacher)
    torch.testing.assert_close(structure.pairwise(turned, teacher), expected)


@pytest.mark.parametrize("loss", [structure.pairwise, structure.adapted])
def test_maps_of_unlike_places_are_refused(loss) -> None:
    with pytest.raises(ValueError, match="expected the same N, H and W"):
        loss(torch.ones(2, 3, 2, 3), torch.ones(2, 3, 3, 2))
