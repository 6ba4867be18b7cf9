"""How well scores tell members from others: the ROC, its area, and its low end.

An average hides what matters: an attack that is sure of one record in a hundred and knows nothing
of the rest has an area of 0.51. Hence true positives at few false ones: Carlini et al. 2022,
arXiv:2112.03570.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from fedkd.auditing.bounds import Floats, interval

RATES = (0.01, 0.001)
"""The false positive rates that are reported."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share in [0, 1] with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Roc:
    """The curve of an attack, and its figures."""

    fpr: NDArray[np.float64]
    """(T,), ascending from 0 to 1."""
    tpr: NDArray[np.float64]
    """(T,)."""
    auc: Rate
    """The chance that a member scores higher than another; 0.5 is chance."""
    at: dict[float, Rate | None]
    """True positives at each of `RATES`; None where there are too few others to see that rate."""
    members: int
    others: int


def roc(members: ArrayLike, others: ArrayLike, *, confidence: float = 0.95) -> Roc:
    """The curve of scores, with two-sided intervals.

    The area's interval is DeLong's (1988), which allows for ties; that of a rate is Clopper &
    Pearson's for the members, given the threshold.

    Args:
        members: scores (M,), M >= 2.
        others: scores (N,), N >= 2.
        confidence: in (0, 1), of each interval.

    Raises:
        ValueError: there are too few scores, or one is NaN.
    """
    inside, outside = (np.sort(np.asarray(each, dtype=np.float64)) for each in (members, others))
    if min(len(inside), len(outside)) < 2 or np.isnan([inside[-1], outside[-1]]).any():
        raise ValueError(
            f"Expected at least 2 scores of members and of others, no NaN, got {len(inside)} and "
            f"{len(outside)}."
        )
    thresholds = np.unique(np.concatenate([inside, outside]))[::-1]
    fpr, tpr = _above(outside, thresholds, "left"), _above(inside, thresholds, "left")
    return Roc(
        np.concatenate([[0.0], fpr]),
        np.concatenate([[0.0], tpr]),
        _area(inside, outside, confidence),
        {rate: _rate(inside, outside, rate, confidence) for rate in RATES},
        len(inside),
        len(outside),
    )


def most_tpr(fpr: Floats, curve: ArrayLike) -> Floats:
    """The most true positives that a claim allows at each rate of false ones.

    Kairouz et al. 2015, arXiv:1311.0776: e^epsilon FPR + delta, and the same of the complement, for
    each pair of the privacy curve.

    Args:
        fpr: (T,), in [0, 1].
        curve: (P, 2), pairs of epsilon and delta that all hold.

    Returns:
        (T,), in [0, 1].
    """
    pairs = np.asarray(curve, dtype=np.float64)
    epsilon, delta = pairs[:, :1], pairs[:, 1:]
    straight = np.exp(epsilon) * fpr + delta
    mirrored = 1 - np.exp(-epsilon) * (1 - delta - fpr)
    most: Floats = np.clip(np.minimum(straight, mirrored).min(axis=0), 0, 1)
    return most


def _rate(inside: Floats, outside: Floats, rate: float, confidence: float) -> Rate | None:
    allowed = int(np.floor(rate * len(outside) + 1e-9))
    if allowed < 1:
        return None
    threshold = outside[len(outside) - 1 - allowed]
    hits = len(inside) - int(np.searchsorted(inside, threshold, side="right"))
    return Rate(hits / len(inside), *interval(hits, len(inside), confidence=confidence))


def _area(inside: Floats, outside: Floats, confidence: float) -> Rate:
    wins = (_below(outside, inside, "left") + _below(outside, inside, "right")) / 2
    losses = (_above(inside, outside, "left") + _above(inside, outside, "right")) / 2
    area = float(wins.mean())
    variance = wins.var(ddof=1) / len(inside) + losses.var(ddof=1) / len(outside)
    margin = float(special.ndtri((1 + confidence) / 2) * np.sqrt(variance))
    return Rate(area, max(0.0, area - margin), min(1.0, area + margin))


def _below(ordered: Floats, values: Floats, side: str) -> Floats:
    found: Floats = np.searchsorted(ordered, values, side=side) / len(ordered)  # type: ignore[call-overload]
    return found


def _above(ordered: Floats, values: Floats, side: str) -> Floats:
    return 1 - _below(ordered, values, side)
