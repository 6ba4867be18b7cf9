"""Decisions on real numbers of which the first bits are known: with as many more as they take."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from fedkd.privacy.ziggurat import BITS

_MORE = 128
"""Bits at a time."""


def settle(
    decide: Callable[..., float | None], numbers: Iterable[int], words: Callable[[int], Any]
) -> float:
    """What `decide` makes of uniform numbers in (0, 1).

    Args:
        decide: of interval arithmetic, and of an interval for each number; None: not yet.
        numbers: their first 52 bits.
        words: draws so many further ones, of 64 bits.
    """
    from mpmath.ctx_iv import MPIntervalContext  # for few draws, and no start waits for it

    iv, bits, known = MPIntervalContext(), BITS, [int(number) for number in numbers]
    while True:
        more = [int.from_bytes(words(_MORE // 64).tobytes()) for _ in known]
        known = [number << _MORE | some for number, some in zip(known, more, strict=True)]
        bits += _MORE
        iv.prec = bits + _MORE
        within = [iv.mpf([number, number + 1]) / iv.mpf(2) ** bits for number in known]
        # Below the first of all numbers lies none, and its logarithm is infinite.
        found = decide(iv, *within) if all(known) else None
        if found is not None:
            return found


def whole(draw: Any, *, where: bool | None = True) -> float | None:
    """The whole number next to all of an interval; None where there are two.

    Args:
        draw: an interval.
        where: whether it is a draw at all, or else NaN is said; None: nobody knows yet.
    """
    if not where:
        return None if where is None else math.nan
    low = math.floor(float(draw.mid))
    for number in (low, low + 1):
        if draw > number - 0.5 and draw < number + 0.5:
            return float(number)
    return None


def below(one: Any, other: Any) -> bool | None:
    """Whether an interval is below another; None where they overlap."""
    return True if one < other else False if one > other else None
