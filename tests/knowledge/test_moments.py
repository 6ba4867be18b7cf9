"""Moments against the definition, scikit-learn's ridge, and the sensitivity of one record."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from torch import Tensor

from fedkd.exchange.masking import fixed_point
from fedkd.knowledge.moments import (
    Moments,
    moments,
    noise_norm,
    protected,
    ridge,
    symmetric,
    total,
    triangle,
)
from fedkd.privacy.source import NoiseSource

CLASSES = 3
SEEDS = st.integers(0, 2**31)


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def records(seed: int, size: int, width: int) -> tuple[Tensor, Tensor]:
    generator = draws(seed)
    phi = torch.randn(size, width, generator=generator, dtype=torch.float64)
    return phi, torch.randint(CLASSES, (size,), generator=generator)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(0, 6), st.integers(1, 5))
def test_moments_are_the_sums_record_by_record(seed: int, size: int, width: int) -> None:
    phi, y = records(seed, size, width)
    features, labels = torch.zeros(width, width).double(), torch.zeros(width, CLASSES).double()
    for row, label in zip(phi, y.tolist(), strict=True):
        features += torch.outer(row, row)
        labels[:, label] += row
    found = moments(phi, y, CLASSES)
    torch.testing.assert_close(found.features, features)
    torch.testing.assert_close(found.labels, labels)
    again = symmetric(triangle(found.features), width)
    torch.testing.assert_close(again, features)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(1e-3, 1e3))
def test_ridge_is_scikit_learns(seed: int, penalty: float) -> None:
    phi, y = records(seed, 30, 6)
    oracle = Ridge(alpha=penalty, fit_intercept=False, solver="svd")
    oracle.fit(phi.numpy(), torch.nn.functional.one_hot(y, CLASSES).double().numpy())
    found = ridge(moments(phi, y, CLASSES), penalty)
    torch.testing.assert_close(found, torch.from_numpy(oracle.coef_.T.copy()))


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 7))
def test_the_partition_does_not_show_in_the_total(seed: int, parties: int) -> None:
    phi, y = records(seed, 40, 6)
    owner = torch.randint(parties, (40,), generator=draws(seed + 1))
    parts = [moments(phi[owner == k], y[owner == k], CLASSES) for k in range(parties)]
    whole = moments(phi, y, CLASSES)
    torch.testing.assert_close(ridge(total(parts), 0.1), ridge(whole, 0.1), rtol=1e-10, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.floats(0.1, 10), st.floats(0.1, 10))
def test_the_noise_is_for_the_furthest_that_one_record_moves_both_sums(
    seed: int, bound: float, balance: float
) -> None:
    phi, y = records(seed, 1, 4)
    phi = bound * phi / phi.norm()
    moved = moments(phi, y, CLASSES)
    gain = balance * bound
    sensitivity = math.hypot(moved.features.norm(), gain * moved.labels.norm())
    nothing = Moments(torch.zeros(4, 4).double(), torch.zeros(4, CLASSES).double())
    noise = protected(nothing, bound=bound, balance=balance, noise_multiplier=2.0, source=One())
    # All draws are one standard deviation, and the grid's rounding is paid for.
    close = {"rtol": 2**-13, "atol": 0}
    scale = torch.where(torch.eye(4) > 0, 1.0, 0.5).double().sqrt()  # two entries for one off it
    torch.testing.assert_close(noise.features, 2.0 * sensitivity * scale, **close)
    expected = torch.full((4, CLASSES), 2.0 * sensitivity / gain, dtype=torch.float64)
    torch.testing.assert_close(noise.labels, expected, **close)


class One:
    """A source whose every draw is its scale."""

    def gaussian(self, scales: np.ndarray) -> np.ndarray:
        return np.rint(scales).astype(np.int64)


def test_sums_that_will_be_masked_stand_on_the_masks_grid() -> None:
    """Were they finer, each client's would be rounded alone, which their sum would tell of."""
    exact = moments(*records(0, 50, 4), CLASSES)
    how = {"bound": 1e-3, "balance": 1.0, "noise_multiplier": 1.0, "source": NoiseSource()}
    told = protected(exact, **how, finest=fixed_point.RESOLUTION)._asdict()
    kept = fixed_point.floating(fixed_point.fixed(told, parties=3))
    assert all(torch.equal(kept[name], told[name]) for name in told)
    finer = protected(exact, **how)._asdict()
    assert not torch.equal(
        fixed_point.floating(fixed_point.fixed(finer, parties=3))["labels"], finer["labels"]
    )


def test_the_norm_of_the_noise_is_the_semicircles() -> None:
    width, told = 200, {"bound": 1.1, "balance": 0.5, "noise_multiplier": 3.0}
    nothing = Moments(torch.zeros(width, width).double(), torch.zeros(width, CLASSES).double())
    noises = [protected(nothing, **told, source=NoiseSource()).features for _ in range(4)]
    for count in (1, 4):
        found = float(torch.linalg.matrix_norm(sum(noises[:count]), 2))
        assert found == pytest.approx(noise_norm(width, **told, releases=count), rel=0.1)


def test_negative_eigenvalues_count_as_nothing() -> None:
    features = torch.diag(torch.tensor([-5.0, 3.0], dtype=torch.float64))
    found = ridge(Moments(features, torch.ones(2, 1).double()), 1.0)
    torch.testing.assert_close(found, torch.tensor([[1.0], [0.25]], dtype=torch.float64))


def test_what_does_not_fit_is_refused() -> None:
    some = moments(*records(0, 3, 2), CLASSES)
    with pytest.raises(ValueError, match="Expected penalty=0"):
        ridge(some, 0)
    with pytest.raises(ValueError, match="moments of one shape"):
        total([some, moments(*records(0, 3, 4), CLASSES)])
    with pytest.raises(ValueError, match="the triangle of width 3"):
        symmetric(torch.ones(5), 3)
