"""Whether noise has the size that is claimed, part by part: no norm over all parts hides one."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

from fedkd.audit.verdicts import Check, checked

CHANCE = 1e-7
"""Of each accusation of correct code."""
_SLACK = 1.01
"""By how much noise may be larger than claimed: rounding and float32 are paid for."""


def check_gaussian(what: str, parts: Mapping[str, Tensor], beside: str = "") -> Check:
    """Each part is Gaussian noise of its size.

    Args:
        what: was looked at.
        parts: by name noise over the standard deviation that is claimed, any shape.
        beside: what else is to be said.
    """
    squares = {name: float((part.double() ** 2).sum()) for name, part in parts.items()}
    sizes = {name: part.numel() for name, part in parts.items()}
    chances = {
        name: _chance(stats.chi2, squares[name], squares[name] / _SLACK**2, sizes[name])
        for name in parts
    }
    ratios = {name: math.sqrt(squares[name] / sizes[name]) for name in parts}
    return _worst(what, chances, ratios, beside)


def check_counts(what: str, parts: Mapping[str, Tensor], scale: float) -> Check:
    """Each part is Laplace noise of this scale, rounded to whole numbers; else `check_gaussian`."""
    share = math.exp(-1 / scale)
    # Moments of the length of a rounded draw; a sum of hundreds is next to normal.
    mean = math.sqrt(share) / (1 - share)
    deviation = math.sqrt(mean * (1 + share) / (1 - share) - mean**2)
    lengths = {name: float(part.double().abs().mean()) for name, part in parts.items()}
    chances = {}
    for name, length in lengths.items():
        error = deviation / math.sqrt(parts[name].numel())
        low, high = (length - mean) / error, (length / _SLACK - mean) / error
        chances[name] = 2 * float(min(stats.norm.cdf(low), stats.norm.sf(high)))
    return _worst(what, chances, {name: each / mean for name, each in lengths.items()})


def check_share(what: str, hits: int, trials: int, expected: float) -> Check:
    """Something happens as often as the noise that is claimed lets it."""
    chance = float(stats.binomtest(hits, trials, expected).pvalue)
    found = f"{hits} of {trials} queries end as is likely, {expected * trials:.0f} expected"
    return checked(what, chance > CHANCE, found)


def unlikely(chances: ArrayLike) -> bool:
    """Whether one of several chances is too small, all of them counted."""
    told = np.asarray(chances)
    return bool(told.min() < CHANCE / told.size)


def _chance(distribution: stats.rv_continuous, low: float, high: float, freedom: int) -> float:
    """Of a sum as small or as large, either side."""
    below, above = distribution.cdf(low, freedom), distribution.sf(high, freedom)
    return 2 * float(min(below, above))


def _worst(
    what: str, chances: Mapping[str, float], ratios: Mapping[str, float], beside: str = ""
) -> Check:
    worst = min(chances, key=chances.__getitem__)
    found = (
        f"on {worst} it has {ratios[worst]:.2f} times the size that is claimed (1 expected), the "
        f"least likely of {len(chances)} parts"
    )
    return checked(what, not unlikely(list(chances.values())), found + beside)
