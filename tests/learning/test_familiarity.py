"""How alike own records and a proxy set are: an oracle, densities that are known, few records."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from fedkd.learning.familiarity import LEAST, familiarity


def drawn(*shape: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + shift


def of(own: Tensor, proxy: Tensor, seed: int = 0) -> float:
    return familiarity(own, proxy, torch.Generator().manual_seed(seed))


def test_it_is_the_error_that_scikit_learn_makes_in_telling_them_apart() -> None:
    own, proxy = drawn(40, 3, seed=1, shift=0.7), drawn(90, 3, seed=2)
    draws = torch.Generator().manual_seed(0)
    halves = torch.cat([torch.randperm(n, generator=draws) % 2 for n in (40, 90)]).numpy()
    x = torch.cat([own, proxy]).double().numpy()
    x = (x - x.mean(0)) / x.std(0, ddof=1)
    x = np.concatenate([x, np.ones((130, 1))], axis=1)
    y, weights = np.repeat([1.0, -1.0], (40, 90)), np.repeat([1 / 40, 1 / 90], (40, 90))
    error = 0.0
    for half in (0, 1):
        fitted, held = halves != half, halves == half
        model = Ridge(alpha=0.01, fit_intercept=False).fit(x[fitted], y[fitted], weights[fitted])
        error += weights[held] @ (model.predict(x[held]) - y[held]) ** 2 / 2
    assert of(own, proxy) == pytest.approx(error, rel=1e-9)


def test_of_two_uniform_densities_it_is_their_overlap() -> None:
    """A third of each is the other's: 2 p q / (p + q) is 1/3 in all; a line sees more of it."""
    own, proxy = (torch.rand(20_000, 1, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    shifted = of(own + 2 / 3, proxy)
    # Of a fit of one number its error is 1 - d^2 / (4 v + d^2): means are d apart, variances v.
    apart, variance = 2 / 3, 1 / 12
    assert shifted == pytest.approx(1 - apart**2 / (4 * variance + apart**2), abs=0.02)
    assert shifted > 1 / 3


def test_records_of_one_density_are_familiar_however_few_and_others_are_not() -> None:
    proxy = drawn(60, 12, seed=1)
    assert of(drawn(6, 12, seed=2), proxy) > 0.8
    assert of(drawn(200, 12, seed=3), proxy) == pytest.approx(1.0, abs=0.1)
    assert of(drawn(200, 12, seed=3, shift=6.0), proxy) < 0.05
    assert of(drawn(1, 12, seed=3), proxy) == LEAST
    assert of(proxy, proxy[:1]) == LEAST


def test_images_are_told_apart_by_texture() -> None:
    """By what is rough and what is smooth, where all have the same mean and variance."""
    rough, other = drawn(150, 3, 16, 16, seed=1), drawn(150, 3, 16, 16, seed=2)
    smooth = torch.nn.functional.avg_pool2d(other, 3, stride=1, padding=1)
    smooth = smooth / smooth.std()
    assert of(rough, other) > 0.8
    assert of(rough, smooth) < 0.3
