"""The least noise for which a plan fits a budget."""

import math
from collections.abc import Callable, Iterable

from fedkd.errors import BudgetError
from fedkd.privacy import accountant
from fedkd.privacy.budget import Budget
from fedkd.privacy.events import Protected

LEAST_NOISE = 0.01
"""The least that is ever answered, even where the budget allows less."""
MOST_NOISE = 1e4
"""What does not fit with this much noise fits with none."""
_PRECISION = 1e-3  # of the noise


def noise_for(
    target: Budget,
    plan: Callable[[float], Iterable[Protected]],
    *,
    spent: Iterable[Protected] = (),
) -> float:
    """The smallest noise multiplier for which `plan(noise)` and what is `spent` fit the budget.

    A plan for data that was never touched is costed by PLD. Where something is spent already the
    plan may have been chosen with knowledge of it, so there it is costed by the filter, as a ledger
    will. Found by Brent's method.

    Args:
        target: what all events together may cost.
        plan: what will be done at a given noise multiplier; more noise must not cost more.
        spent: what was done to the same data already.

    Returns:
        From 0.01 to 10,000; at most one part in a thousand above the smallest, never below it.

    Raises:
        BudgetError: even a noise multiplier of 10,000 costs more than the budget.
        ValueError: an event is not of the budget's unit and adjacency, or a value of it is out of
            its range.
    """
    spent = list(spent)

    def events(noise: float) -> list[Protected]:
        return [*spent, *plan(noise)]

    def quick(noise: float) -> float:
        return _excess(accountant.quick_epsilon(events(noise), target), target)

    def coarse(noise: float) -> float:
        return _excess(accountant.epsilon(events(noise), target.delta, coarse=True), target)

    def exact(noise: float) -> float:
        return _excess(accountant.epsilon(events(noise), target.delta), target)

    def filtered(noise: float) -> float:
        return _excess(accountant.filter_epsilon(events(noise), target), target)

    cheap, enforced = (filtered, filtered) if spent else (quick, exact)
    if cheap(LEAST_NOISE) <= 0:
        return LEAST_NOISE
    if enforced(MOST_NOISE) > 0:
        raise _refusal(target, events(MOST_NOISE), spent)
    if spent:
        return _least(filtered, _root(filtered, LEAST_NOISE, MOST_NOISE))
    guess = _root(quick, LEAST_NOISE, MOST_NOISE) if quick(MOST_NOISE) <= 0 else MOST_NOISE
    # A look at the exact figure costs up to seconds, so two or three must do.
    if coarse(MOST_NOISE) <= 0:
        guess = _least(coarse, guess)
    return _least(exact, guess)


def _excess(epsilon: float, target: Budget) -> float:
    """ln(epsilon / target), bounded: nearly straight in ln(noise), so that few looks suffice."""
    return math.log(min(max(epsilon / target.epsilon, 1e-9), 1e9))


def _least(excess: Callable[[float], float], guess: float) -> float:
    """The least noise with `excess` at most 0, to the precision and never below it."""
    low, high = _bracket(excess, guess)
    if high > low * (1 + _PRECISION):
        high = _rounded_up(_root(excess, low, high) * (1 + _PRECISION / 4))
        while excess(high) > 0:  # an epsilon that does not fall evenly
            high = _rounded_up(high * (1 + _PRECISION / 4))
    return high


def _bracket(excess: Callable[[float], float], guess: float) -> tuple[float, float]:
    """Noise that is too little, and noise that is enough; twice the least where that is enough."""
    low = high = _rounded_up(guess)
    slack = _PRECISION / 4
    while excess(high) > 0:
        low, high = high, _rounded_up(high * (1 + slack))
        slack *= 4
    while excess(low) <= 0 and low > LEAST_NOISE:
        # Epsilon falls at least as fast as noise grows, unless part of it is fixed.
        step = max(math.exp(excess(low)) * (1 - slack), 0.5)
        low, high = max(low * step, LEAST_NOISE), low
        slack *= 4
    return (low, high) if excess(low) > 0 else (low, low)


def _root(excess: Callable[[float], float], low: float, high: float) -> float:
    """Where `excess`, above 0 at `low` and at most 0 at `high`, crosses 0; nearly."""
    from scipy.optimize import brentq

    log = brentq(lambda x: excess(math.exp(x)), math.log(low), math.log(high), xtol=_PRECISION / 4)
    return math.exp(log)


def _rounded_up(noise: float) -> float:
    """To five digits, and at most the most noise."""
    unit = 10.0 ** (math.floor(math.log10(noise)) - 4)
    return min(round(math.ceil(noise / unit) * unit, 12), MOST_NOISE)


def _refusal(target: Budget, planned: list[Protected], spent: list[Protected]) -> BudgetError:
    if spent:
        before, after = (accountant.filter_epsilon(each, target) for each in (spent, planned))
        why = f"{before:.4g} is taken already, as the RDP filter counts what follows on results"
    else:
        after = accountant.epsilon(planned, target.delta)
        why = "what has noise of its own, such as counts, takes it"
    return BudgetError(
        f"no noise fits the plan into the budget of {target}: epsilon would be {after:.4g} with a "
        f"noise multiplier of {MOST_NOISE:g}, since {why}; raise the budget, send fewer counts or "
        "with more noise, or plan fewer steps"
    )
