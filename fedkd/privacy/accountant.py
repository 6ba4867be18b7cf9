"""What events cost in epsilon, by dp-accounting.

Two questions, two answers. `epsilon` is tight and answers for a plan that was fixed before any data
was touched. `filter_epsilon` is looser and answers where each event was chosen after seeing what
the earlier ones gave away: a privacy filter.

An event's noise multiplier is already over the sensitivity of its own adjacency, so the arithmetic
below is the same for both: one distribution against the other, shifted by one sensitivity.
"""

import logging
import math
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, reduce
from numbers import Real
from typing import Any

import numpy as np

from fedkd.privacy import renyi
from fedkd.privacy.budget import Budget
from fedkd.privacy.events import Gaussian, Laplace, Protected
from fedkd.privacy.renyi import Mechanism, Mechanisms

_MOST_NOISE = 1e6  # more is counted as this, which costs more
_MOST_EPSILON = 1e4  # above, a tight figure is of no use and would fill the memory
_INTERVAL = 1e-4  # of the privacy loss, up to epsilon 100; above, a millionth of epsilon
_LARGEST_ORDER = 1 << 16
_ROUNDING = 1e-12  # more than a double's rounding error in a step's Renyi divergence
_FILTER_ORDERS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

_one_at_a_time = threading.Lock()


def epsilon(events: Iterable[Protected], delta: float, *, coarse: bool = False) -> float:
    """The epsilon that `events` cost together, by privacy loss distributions (PLD).

    Doroshenko et al. 2022, arXiv:2207.04380: rounded up, so never below the truth. Valid for events
    that were fixed in advance; use `filter_epsilon` for those chosen on the way.

    Args:
        events: all on one data set, of one unit and one adjacency, in any order.
        delta: in (0, 1). Below about 1e-13 the figure grows loose, then infinite.
        coarse: take a tenth of the time, for a figure that is slightly higher; to search with.

    Returns:
        At least 0; 0 for no events. Above 10,000 it is a mere upper bound, and may be infinite.

    Raises:
        ValueError: delta or an event's value is out of its range, the units or adjacencies are
            mixed, or an event is Poisson-sampled under an adjacency other than add-remove.
    """
    mechanisms = _mechanisms(events, delta)
    with _one_at_a_time:  # ten clients ask the same at once: one computes, nine find it
        return _pld(mechanisms, delta, 10 * _INTERVAL if coarse else _INTERVAL)


def epsilon_rdp(events: Iterable[Protected], delta: float) -> float:
    """The epsilon that `events` cost together, by Renyi DP at its best order, for reports.

    Mironov 2017, arXiv:1702.07476; Mironov et al. 2019, arXiv:1908.10530. The best order is chosen
    afterwards, so this is no filter.

    Args:
        events: as for `epsilon`.
        delta: in (0, 1).

    Returns:
        At least 0, and as a rule above `epsilon`; 0 for no events.

    Raises:
        ValueError: as `epsilon`.
    """
    mechanisms = _mechanisms(events, delta)
    with _one_at_a_time:
        return _rdp(mechanisms, delta)


def quick_epsilon(events: Iterable[Protected], budget: Budget) -> float:
    """An upper bound on `epsilon` at the budget's delta, within milliseconds; to search with.

    Raises:
        ValueError: as `filter_epsilon`.
    """
    return renyi.quick(_mechanisms(events, budget.delta, budget), budget.delta)


def filter_orders(budget: Budget) -> dict[int, float]:
    """The Renyi orders at which a filter for `budget` composes, each with its share of delta.

    Orders and shares are fixed before the first event is chosen, by the budget alone. Half of delta
    goes to the order that is best for plain Gaussian noise, the rest to a few that are best for
    other mixes, such as much subsampling. At each order alone stopping in time is a valid filter
    (Feldman & Zrnic). To go on while any one of them allows it is valid too: sort what can come out
    by the first order that still allows it; each sort is a part of what that order's own filter can
    let out, and costs its own share of delta.

    Returns:
        Orders from 2 to 65,536; the shares sum to the budget's delta.
    """
    best = _best_order(budget)
    others = [order for order in _FILTER_ORDERS if order != best]
    return {best: budget.delta / 2, **dict.fromkeys(others, budget.delta / 2 / len(others))}


def _best_order(budget: Budget) -> int:
    """The best order for a Gaussian mechanism that spends the budget exactly."""
    log = -math.log(budget.delta)
    root = budget.epsilon / (math.sqrt(budget.epsilon + log) + math.sqrt(log))  # root^2 = rho
    return max(2, round(1 + min(math.sqrt(log) / root, _LARGEST_ORDER - 1)))


def filter_epsilon(events: Iterable[Protected], budget: Budget) -> float:
    """The epsilon of `events` at the budget's delta, valid for events chosen adaptively.

    A privacy filter: Feldman & Zrnic 2021, arXiv:2008.11193; Lecuyer 2021, arXiv:2103.01379. It
    allows whatever keeps this at most `budget.epsilon`.

    Args:
        events: all on one data set, of the budget's unit and adjacency.
        budget: what may be spent; it fixes delta and the orders.

    Returns:
        At least 0; 0 for no events.

    Raises:
        ValueError: as `epsilon`, or the unit or adjacency is not the budget's.
    """
    mechanisms = _mechanisms(events, budget.delta, budget)
    orders = filter_orders(budget).items()
    return min(renyi.converted(mechanisms, [order], share) for order, share in orders)


# Checks


def _mechanisms(
    events: Iterable[Protected], delta: float, budget: Budget | None = None
) -> Mechanisms:
    """The events checked and grouped by mechanism; what they were for costs nothing."""
    if not 0 < delta < 1:
        raise ValueError(f"Expected 0 < delta={delta} < 1.")
    events = list(events)
    for event in events:
        _check(event)
    asked = [] if budget is None else [budget]
    for name in ("unit", "adjacency"):
        found = sorted({getattr(each, name) for each in (*asked, *events)})
        if len(found) > 1:
            raise ValueError(f"Expected one {name} for all events and the budget, got {found}.")
    steps: Counter[Mechanism] = Counter()
    for event in events:
        rate = event.sample_rate if isinstance(event, Gaussian) else 1.0
        noise = min(float(event.noise_multiplier), _MOST_NOISE)
        steps[type(event), noise, float(rate)] += event.steps
    return tuple(sorted(steps.items(), key=lambda item: (item[0][0].__name__, item)))


def _check(event: Protected) -> None:
    """Raise `ValueError` unless every value of the event is in its range."""
    if not isinstance(event, Gaussian | Laplace):
        raise ValueError(f"Expected a Gaussian or Laplace event, got {event!r}.")  # noqa: TRY004
    noise, steps = event.noise_multiplier, event.steps
    if not (_is_real(noise) and math.isfinite(noise) and noise > 0):
        raise ValueError(f"Expected a finite noise_multiplier={noise!r} > 0.")
    if not (type(steps) is int and steps >= 1):
        raise ValueError(f"Expected an integer steps={steps!r} >= 1.")
    if isinstance(event, Gaussian):
        _check_rate(event)


def _check_rate(event: Gaussian) -> None:
    """Raise `ValueError` unless the event's sampling is what the accountant knows."""
    rate = event.sample_rate
    if not (_is_real(rate) and 0 < rate <= 1):
        raise ValueError(f"Expected 0 < sample_rate={rate!r} <= 1.")
    if rate < 1 and event.adjacency != "add-remove":
        raise ValueError(
            f"Expected sample_rate={rate} = 1 under adjacency={event.adjacency!r}: Poisson sampling"
            " is accounted for add-remove only."
        )


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


# Privacy loss distributions


@lru_cache(maxsize=4096)
def _pld(mechanisms: Mechanisms, delta: float, interval: float) -> float:
    bound = renyi.quick(mechanisms, delta)
    if not mechanisms or bound > _MOST_EPSILON:
        return bound
    # A distribution as wide as a large epsilon is kept on a wider grid, or it takes minutes.
    interval *= max(1, bound / 100)
    parts = (_losses(mechanism, steps, interval) for mechanism, steps in mechanisms)
    return float(reduce(lambda one, other: one.compose(other), parts).get_epsilon_for_delta(delta))


@lru_cache(maxsize=64)  # a megabyte each; a search changes one and asks for the others again
def _losses(mechanism: Mechanism, steps: int, interval: float) -> Any:  # dp_accounting is untyped
    """The privacy loss distribution of one mechanism after all its steps."""
    kind, noise, rate = mechanism
    if kind is Gaussian and rate == 1:  # the sum of Gaussians is one
        return _step((kind, noise / math.sqrt(steps), rate), interval)
    return _step(mechanism, interval).self_compose(steps)


@lru_cache(maxsize=16)  # a step takes longer than to compose it, and each round asks for one more
def _step(mechanism: Mechanism, interval: float) -> Any:
    """The privacy loss distribution of one step."""
    from dp_accounting.pld import privacy_loss_distribution as pld  # 1.6 s

    kind, noise, rate = mechanism
    if kind is Laplace:
        return pld.from_laplace_mechanism(noise, value_discretization_interval=interval)
    return pld.from_gaussian_mechanism(
        noise, value_discretization_interval=interval, sampling_prob=rate
    )


# Renyi DP at many orders


@lru_cache(maxsize=4096)
def _rdp(mechanisms: Mechanisms, delta: float) -> float:
    from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant, compute_epsilon

    if not mechanisms or math.isinf(renyi.quick(mechanisms, delta)):
        return renyi.quick(mechanisms, delta)
    accountant = RdpAccountant()
    with _orders_left_out_in_silence():
        for mechanism, steps in mechanisms:
            accountant.compose(_dp_event(mechanism), steps)
    # Rounding can leave the cost of nearly nothing below the truth, even below zero.
    error = _ROUNDING * sum(steps for _, steps in mechanisms)
    curve = np.maximum(accountant.rdp, 0) + error
    return float(compute_epsilon(accountant.orders, curve, delta)[0])


@contextmanager
def _orders_left_out_in_silence() -> Iterator[None]:
    """Drop this thread's warnings about orders that dp-accounting rightly leaves out."""
    thread = threading.get_ident()

    def other(record: logging.LogRecord) -> bool:
        return record.thread != thread or "failed to converge" not in str(record.msg)

    logger = logging.getLogger("absl")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def _dp_event(mechanism: Mechanism) -> Any:
    from dp_accounting import dp_event

    kind, noise, rate = mechanism
    if kind is Laplace:
        return dp_event.LaplaceDpEvent(noise)
    gaussian = dp_event.GaussianDpEvent(noise)
    return gaussian if rate == 1 else dp_event.PoissonSampledDpEvent(rate, gaussian)
