"""Lower bounds on epsilon from an attacker's rates of error, and the most that each can show.

Scores are higher for members. Every bound holds with the confidence that it is asked for, however
many guesses or thresholds it tried: the chance of error is divided among them (Bonferroni), and
which they are is fixed before the scores are seen. A lower bound of 0 says nothing at all.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

_MOST = 1000.0
"""Epsilon beyond which no search goes."""
TRIED = 8
"""Guesses or thresholds that are tried of one set of scores."""

Floats = NDArray[np.floating[Any]]


def clopper_pearson(successes: ArrayLike, trials: int, *, confidence: float = 0.95) -> Floats:
    """The upper limit on the chance of success, one-sided. Clopper & Pearson 1934.

    Args:
        successes: counts of any shape, in [0, trials].
        trials: >= 1.
        confidence: in (0, 1).

    Returns:
        The shape of `successes`; 1 where all trials succeeded.

    Raises:
        ValueError: a value is out of its range.
    """
    counts = np.asarray(successes)
    if trials < 1 or not ((counts >= 0) & (counts <= trials)).all():
        raise ValueError(f"Expected 0 <= successes={counts} <= trials={trials}, >= 1.")
    limit = special.betaincinv(
        counts + 1.0, np.maximum(trials - counts, 1.0), 1 - doubt_of(confidence)
    )
    return np.where(counts < trials, limit, 1.0)


def rates(
    members: ArrayLike, others: ArrayLike, *, confidence: float = 0.95
) -> tuple[Floats, Floats]:
    """Upper limits on the false positive and false negative rates of a few thresholds.

    The thresholds are scores of non-members at ranks that are fixed beforehand. The rate of false
    positives above the k-th highest of n scores has the distribution Beta(k, n - k + 1), whose
    limit is that of Clopper & Pearson for k - 1 of n; members are independent of the threshold. So
    all limits hold at once with the confidence asked for, if the scores are independent.

    Args:
        members: scores (M,), M >= 1, independent of each other and of `others`.
        others: scores (N,), N >= 1, independent of each other.
        confidence: in (0, 1), for all limits together.

    Returns:
        False positive and false negative rates, each (T,).

    Raises:
        ValueError: a score is NaN, or there is none of either kind.
    """
    inside, outside = as_scores(members, others)
    ranks = ranks_tried(len(outside))
    each = 1 - doubt_of(confidence) / (2 * len(ranks))
    thresholds = np.sort(outside)[::-1][ranks - 1]
    missed = (inside[None, :] <= thresholds[:, None]).sum(axis=1)
    return (
        clopper_pearson(ranks - 1, len(outside), confidence=each),
        clopper_pearson(missed, len(inside), confidence=each),
    )


def ranks_tried(others: int) -> NDArray[np.int64]:
    """The ranks of the non-members' scores that serve as thresholds: 1 .. N, evenly in logit."""
    low = special.logit(0.5 / others)
    shares = special.expit(np.linspace(low, -low, 2 * TRIED))
    return np.unique(np.clip(np.ceil(shares * others), 1, others).astype(np.int64))


def from_rates(
    members: ArrayLike, others: ArrayLike, *, delta: float, confidence: float = 0.95
) -> float:
    """Epsilon from the rates of error of a few thresholds, whatever the mechanism; 0 for none.

    ln((TPR - delta) / FPR) with the limits of `rates`, and the same of the complement: Jagielski et
    al. 2020, arXiv:2006.07709; Nasr et al. 2021, arXiv:2101.04535.

    Args:
        members: as for `rates`; so are `others` and `confidence`.
        others: N scores.
        delta: in [0, 1].
        confidence: in (0, 1).

    Raises:
        ValueError: as `rates`, or delta is outside its range.
    """
    check_claim(0.0, delta)
    positive, negative = rates(members, others, confidence=confidence)
    return max(_ratio(positive, negative, delta), _ratio(negative, positive, delta))


def from_rates_ceiling(
    members: int, others: int, *, delta: float, confidence: float = 0.95
) -> float:
    """What `from_rates` shows of scores that tell all members from all others."""
    return from_rates(np.ones(members), np.zeros(others), delta=delta, confidence=confidence)


def gaussian_dp(members: ArrayLike, others: ArrayLike, *, confidence: float = 0.95) -> float:
    """A lower limit on mu, if the mechanism is mu-Gaussian-DP; 0 for none.

    Dong, Roth & Su 2019, arXiv:1905.02383, equation 6, with the limits of `rates`; an auditor's
    estimator in Nasr et al. 2023, arXiv:2302.07956. What is computed from the output of a Gaussian
    mechanism obeys it too, so that it holds for any attack on one.

    Raises:
        ValueError: as `rates`.
    """
    positive, negative = rates(members, others, confidence=confidence)
    informative = (positive < 1) & (negative < 1)
    mu = special.ndtri(1 - positive[informative]) - special.ndtri(negative[informative])
    return float(mu.max(initial=0.0))


def gaussian_dp_ceiling(members: int, others: int, *, confidence: float = 0.95) -> float:
    """What `gaussian_dp` shows of scores that tell all members from all others."""
    return gaussian_dp(np.ones(members), np.zeros(others), confidence=confidence)


def epsilon_of(mu: float, delta: float) -> float:
    """The epsilon at `delta` of a mu-Gaussian-DP mechanism. arXiv:1905.02383, corollary 2.13.

    Args:
        mu: >= 0, finite.
        delta: in (0, 1).

    Raises:
        ValueError: a value is out of its range.
    """
    if not (0 <= mu < math.inf and 0 < delta < 1):
        raise ValueError(f"Expected mu={mu} >= 0 and finite, and 0 < delta={delta} < 1.")
    if mu == 0:
        return 0.0

    def above(epsilon: float) -> float:
        first = float(special.log_ndtr(-epsilon / mu + mu / 2))
        second = epsilon + float(special.log_ndtr(-epsilon / mu - mu / 2))
        gap = second - first
        left = first + math.log(-math.expm1(gap)) if gap < 0 else -math.inf
        return left - math.log(delta)

    return largest(above)


def interval(successes: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided interval of Clopper & Pearson for the chance of success."""
    each = 1 - doubt_of(confidence) / 2
    low = 1 - float(clopper_pearson(trials - successes, trials, confidence=each))
    return low, float(clopper_pearson(successes, trials, confidence=each))


def _ratio(one: Floats, other: Floats, delta: float) -> float:
    kept = 1 - other - delta
    informative = kept > 0
    return float(np.log(kept[informative] / one[informative]).max(initial=0.0))


def largest(positive: Callable[[float], float]) -> float:
    """The root of a decreasing function on [0, `_MOST`]; 0 if it is nowhere positive."""
    if positive(0.0) <= 0:
        return 0.0
    high = 1.0
    while high < _MOST and positive(high) > 0:
        high *= 2
    if high >= _MOST:
        return _MOST
    return float(optimize.brentq(positive, 0.0, high, xtol=1e-9))


def doubt_of(confidence: float) -> float:
    """The chance of error that a confidence in (0, 1) leaves; else a `ValueError`."""
    if not 0 < confidence < 1:
        raise ValueError(f"Expected 0 < confidence={confidence} < 1.")
    return 1 - confidence


def check_claim(epsilon: float, delta: float) -> None:
    """Raise `ValueError` unless epsilon >= 0 and delta is in [0, 1]."""
    if not (epsilon >= 0 and 0 <= delta <= 1):
        raise ValueError(f"Expected epsilon={epsilon} >= 0 and 0 <= delta={delta} <= 1.")


def as_scores(members: ArrayLike, others: ArrayLike) -> tuple[Floats, Floats]:
    """Scores (M,) and (N,) as float64; a `ValueError` if there are none of a kind, or a NaN."""
    inside, outside = (np.asarray(scores, dtype=np.float64) for scores in (members, others))
    for scores in (inside, outside):
        if scores.ndim != 1 or len(scores) == 0 or np.isnan(scores).any():
            raise ValueError(
                f"Expected scores (N >= 1,) of members and of others, no NaN, got {inside.shape} "
                f"and {outside.shape}."
            )
    return inside, outside
