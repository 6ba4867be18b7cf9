"""Whether noise has the size that is claimed, part by part: no norm over all parts hides one."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

from fedkd.auditing.verdicts import Check, checked

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
    """Each part is Laplace noise of this scale, rounded to whole numbers; else `check_gaussian`.

    `NO POWER` where counts that are sent bare would pass: such noise is mostly rounded to 0.
    """
    # A rounded draw is not 0 with chance `moved`, and then of length 1, 2, ... geometrically.
    moved, share = math.exp(-1 / (2 * scale)), math.exp(-1 / scale)
    mean = moved / (1 - share)
    chances, ratios = {}, {}
    for name, part in parts.items():
        length, draws = float(part.double().abs().sum()), part.numel()
        below = _chance_of_length(length, draws, moved, share)[0]
        above = _chance_of_length(length / _SLACK, draws, moved, share)[1]
        chances[name] = 2 * min(below, above)
        ratios[name] = length / (draws * mean) if mean else 1 + length
    bare = max(2 * (1 - moved) ** part.numel() for part in parts.values())
    if bare >= CHANCE / len(parts) and not unlikely(list(chances.values())):
        found = f"{moved:.2g} of its draws are not rounded to 0, too few to tell it from none"
        return Check(what, "NO POWER", found)
    return _worst(what, chances, ratios)


def check_share(what: str, hits: int, trials: int, expected: float) -> Check:
    """Something happens as often as the noise that is claimed lets it.

    `NO POWER` where it would as likely happen always, as it does without noise.
    """
    chance, bare = (float(stats.binomtest(n, trials, expected).pvalue) for n in (hits, trials))
    if min(chance, bare) > CHANCE:
        found = f"{hits} of {trials} queries end as is likely, and all of them do without noise"
        return Check(what, "NO POWER", found)
    found = f"{hits} of {trials} queries end as is likely, {expected * trials:.0f} expected"
    return checked(what, chance > CHANCE, found)


def unlikely(chances: ArrayLike) -> bool:
    """Whether one of several chances is too small, all of them counted."""
    p_values = np.asarray(chances)
    return bool(p_values.min() < CHANCE / p_values.size)


def _chance_of_length(length: float, draws: int, moved: float, share: float) -> tuple[float, float]:
    """Of the summed lengths of rounded Laplace draws: at most, and at least so much; exact."""
    count = np.arange(1, draws + 1)
    weights = stats.binom.pmf(count, draws, moved)
    none = (1 - moved) ** draws
    # Beyond 1 a draw's length is geometric, so that the sum over `count` is negative binomial.
    below = stats.nbinom.cdf(math.floor(length) - count, count, 1 - share)
    above = stats.nbinom.sf(math.ceil(length) - count - 1, count, 1 - share)
    return (
        min(1.0, none + float(weights @ below)),
        min(1.0, none * (length <= 0) + float(weights @ above)),
    )


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
