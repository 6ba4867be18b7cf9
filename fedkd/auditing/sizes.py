"""Whether noise has the size that is claimed, part by part: no norm over all parts hides one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Pooled:
    """How large many draws of noise are together, over the standard deviation that is claimed."""

    squares: float
    numbers: int

    @classmethod
    def of(cls, noise: Sequence[Tensor]) -> "Pooled":
        """Of draws of any shapes."""
        squares = sum(float((each.double() ** 2).sum()) for each in noise)
        return cls(squares, sum(each.numel() for each in noise))


def check_pooled(what: str, pools: Sequence[Pooled]) -> Check:
    """All draws together have the size that is claimed: the more there are, the less passes."""
    squares, numbers = sum(p.squares for p in pools), sum(p.numbers for p in pools)
    chance = _chance(stats.chi2, squares, squares / _SLACK**2, numbers)
    found = f"{math.sqrt(squares / numbers):.4f} times the size that is claimed (1 expected)"
    return checked(what, not unlikely([chance]), f"{found}, over {numbers:,} numbers")


def check_shape(what: str, noise: Tensor) -> Check:
    """Draws have tails as a Gaussian's, by their kurtosis: a uniform one of its size has none.

    Args:
        what: was looked at.
        noise: any shape, some hundred numbers at the least.
    """
    drawn = noise.double().flatten().numpy()
    found = f"an excess kurtosis of {stats.kurtosis(drawn):.3f} (0 expected)"
    return checked(what, not unlikely([stats.kurtosistest(drawn).pvalue]), found)


def check_centred(what: str, pulls: Mapping[str, Tensor]) -> Check:
    """Noise is about the exact value, so that what was bounded otherwise shows.

    Args:
        what: was looked at.
        pulls: by name, how far from 0 a standard normal draw is.
    """
    chances = {name: 2 * float(stats.norm.sf(abs(float(z)))) for name, z in pulls.items()}
    worst = min(chances, key=chances.__getitem__)
    found = f"it is {pulls[worst]:.1f} standard deviations away from the exact one of {worst}"
    return checked(what, not unlikely(list(chances.values())), f"{found} (0 expected)")


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
