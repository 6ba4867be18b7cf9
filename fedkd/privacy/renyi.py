"""Renyi DP at integer orders: fast, and exact to rounding however small."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedkd.privacy.events import Laplace, Protected

Mechanism = tuple[type[Protected], float, float]
"""What was run, its noise multiplier, its sample rate."""
Mechanisms = tuple[tuple[Mechanism, int], ...]
"""Each mechanism once, in a fixed order, with all its steps."""

_LEAST_NOISE = 1e-6  # less protects nothing, and its squares leave the floats: epsilon is infinite
_QUICK_ORDERS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 128, 256)


def quick(mechanisms: Mechanisms, delta: float) -> float:
    """An upper bound on the epsilon of `mechanisms` at `delta`, at least 0; within milliseconds."""
    return converted(mechanisms, _QUICK_ORDERS, delta)


def converted(mechanisms: Mechanisms, orders: Sequence[int], delta: float) -> float:
    """The least epsilon at `delta` that the divergences at `orders` prove."""
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

    curve = [math.fsum(n * divergence(each, order) for each, n in mechanisms) for order in orders]
    return float(compute_epsilon(orders, curve, delta)[0])


@lru_cache(maxsize=1 << 17)
def divergence(mechanism: Mechanism, order: int) -> float:
    """One step's Renyi divergence in nats, at least 0. Mironov 2017, arXiv:1702.07476, table II."""
    kind, noise, rate = mechanism
    if noise < _LEAST_NOISE:
        return math.inf
    if kind is Laplace:
        shrunk = (order - 1) * math.expm1((1 - 2 * order) / noise) / (2 * order - 1)
        return 1 / noise + math.log1p(shrunk) / (order - 1)
    if rate == 1:
        return order / (2 * noise**2)
    return _sampled(noise, rate, order)


def _sampled(noise: float, rate: float, order: int) -> float:
    """Mironov et al. 2019, arXiv:1908.10530, section 3.3, less the 1 that the sum tends to.

    sum_k P[k] e^x_k = 1 + sum_k P[k] (e^x_k - 1), with P[k] that of Binomial(order, rate) and
    x_k = k (k - 1) / 2 noise^2. The right side keeps its digits where much noise makes it nearly 1.
    """
    k = np.arange(2, order + 1)
    x = k * (k - 1.0) / (2 * noise**2)
    terms = _log_binomial(rate, order) + x + np.log(-np.expm1(-x))
    most = terms.max()
    log_rest = most + np.log(np.exp(terms - most).sum())
    return float(np.logaddexp(0, log_rest)) / (order - 1)


@lru_cache(maxsize=256)
def _log_binomial(rate: float, order: int) -> NDArray[np.float64]:
    """Logarithms of P[Binomial(order, rate) = k] for k = 2 .. order."""
    log_factorial = np.array([math.lgamma(k + 1) for k in range(order + 1)])
    k = np.arange(order + 1)
    log_choose = log_factorial[-1] - log_factorial - log_factorial[::-1]
    logs: NDArray[np.float64] = log_choose + k * math.log(rate) + (order - k) * math.log1p(-rate)
    return logs[2:]
