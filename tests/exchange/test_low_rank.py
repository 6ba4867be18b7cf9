"""Low-rank updates, against the definition of the best approximation (Eckart & Young)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.exchange.low_rank import factor_shape, factorise, most_rank, multiply

SHAPES = st.sampled_from([(6, 9), (12, 5), (8, 3, 2, 2), (20, 20), (4, 30)])


def drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """A random matrix whose singular values fall off."""
    draws = torch.Generator().manual_seed(seed)
    flat = torch.randn(shape[0], math.prod(shape[1:]), generator=draws)
    return (flat * 0.6 ** torch.arange(flat.shape[1])).reshape(shape)


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(0, 999), st.floats(0.05, 0.999))
def test_the_fewest_singular_values_that_hold_the_energy(
    shape: tuple[int, ...], seed: int, energy: float
) -> None:
    weight = drawn(shape, seed)
    factors = factorise(weight, energy=energy)
    matrix = weight.flatten(1).double().numpy()
    values = np.linalg.svd(matrix, compute_uv=False)
    rank = next(
        k
        for k in range(1, len(values) + 1)
        if (values[:k] ** 2).sum() >= energy * (values**2).sum()
    )
    assert factors.shape == (min(rank, most_rank(shape)), sum(matrix.shape))
    lost = (multiply(factors, shape) - weight).square().sum().item()
    best = (values[len(factors) :] ** 2).sum()
    assert lost == pytest.approx(best, rel=1e-3, abs=1e-9)
    if len(factors) == rank:
        assert lost <= (1 - energy) * (values**2).sum() * (1 + 1e-5) + 1e-9


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple))
def test_factors_are_never_as_large_as_what_they_stand_for(shape: tuple[int, ...]) -> None:
    size, rank = math.prod(shape), most_rank(shape)
    if len(shape) == 1:
        assert rank == 0
        return
    width = shape[0] + math.prod(shape[1:])
    assert factor_shape(shape) == (rank, width)
    assert rank * width < size <= (rank + 1) * width
    assert rank <= min(shape[0], size // shape[0])


def test_nothing_takes_no_rank_and_comes_back_as_nothing() -> None:
    factors = factorise(torch.zeros(4, 6), energy=0.9)
    assert factors.shape == (0, 10)
    assert torch.equal(multiply(factors, (4, 6)), torch.zeros(4, 6))


@pytest.mark.parametrize("energy", [0.0, -0.1, 1.01, math.nan])
def test_a_share_is_a_share(energy: float) -> None:
    with pytest.raises(ValueError, match=r"expected energy=.* in \(0, 1\]"):
        factorise(torch.eye(3), energy=energy)
