"""A ziggurat over the normal density: regions of equal area from which exact draws are made.

Marsaglia & Tsang 2000, "The ziggurat method for generating random variables"; edges differ, so that
what is drawn is exactly normal though tables are float64.

Let f(x) = exp(-x^2 / 2), r = `REACH`, and V = r f(r) + the area under f beyond r. Region 0 is what
lies under f beyond r, and under f(r) before it. Region k > 0 is a box, as wide as x_k, from the
height y_k up to y_(k+1) = y_k + V / x_k; y_1 = f(r), x_1 = r. So all have the area V, whatever the
x_k. If f(x_k) <= y_k, and y at the top is >= 1, then boxes leave out no point under f, and no two
overlap; so a point that is drawn from all regions evenly, and drawn anew unless it lies under f, is
even under f, and its x is half normal. The x_k here are float64 numbers as they are, with room for
the error of float64 in these two conditions. A test holds both with 60 digits.

Points are drawn as real numbers of which the first bits are known: what these and float64 settle is
settled, and for the rest there are more bits, and intervals.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

REGIONS = 1024
"""A power of two: a region is some bits."""
REACH = 4.0388498461
"""Where the tail begins."""
BITS = 52
"""Known of a point's place across, and of its height: with a sign, what a float64 holds."""
MARGIN = 2.0**-40
"""Within this a comparison of heights or places in float64 is not believed; the error of the table
is below 2^-43, and that of an exponential far below that."""

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Ziggurat:
    """The table, (REGIONS,) each.

    Attributes:
        widths: x_k, of region 0 V / f(r): a place beyond r there is one in the tail.
        floors: y_k.
        heights: V / x_k.
        inside: below as many 2^-52 of the width, one to spare, any point of a region is under f.
        units: 2^-52 of the widths.
    """

    widths: Floats
    floors: Floats
    heights: Floats
    inside: Floats
    units: Floats

    @classmethod
    def table(cls) -> Self:
        """In float64."""
        low = math.exp(-(REACH**2) / 2)
        area = REACH * low + math.sqrt(math.pi / 2) * math.erfc(REACH / math.sqrt(2))
        widths, floors = [area / low, REACH], [0.0, low]
        while len(widths) < REGIONS:
            floors.append(floors[-1] + area / widths[-1])
            widths.append(math.sqrt(-2 * math.log(floors[-1])) * (1 + 2.0**-36))
        under = [REACH, *(width * (1 - 2.0**-34) for width in widths[2:]), 0.0]
        share = np.array(under) / widths * (1 - MARGIN)
        across = np.array(widths)
        inside = np.maximum(np.floor(share * 2.0**BITS) - 1, 0)
        return cls(across, np.array(floors), area / across, inside, across * 2.0**-BITS)


def width(iv: Any, region: int) -> Any:
    """The width of a region, as an interval at the precision of `iv`."""
    if region == 0:
        low, area = _base(iv)
        return area / low
    return iv.mpf(float(ZIGGURAT.widths[region]))


def floor_and_height(iv: Any, region: int) -> tuple[Any, Any]:
    """Of a region above the lowest, as `width`."""
    floor, area = _base(iv)
    for below in range(1, region):
        floor += area / width(iv, below)
    return floor, area / width(iv, region)


def _base(iv: Any) -> tuple[Any, Any]:
    """f(r) and V."""
    from mpmath.ctx_mp import MPContext  # for few draws, and no start waits for it

    mp = MPContext()
    mp.prec = iv.prec + 16
    beyond = mp.sqrt(mp.pi / 2) * mp.erfc(mp.mpf(REACH) / mp.sqrt(2))
    error = mp.ldexp(beyond, -iv.prec)
    low = iv.exp(-(iv.mpf(REACH) ** 2) / 2)
    return low, REACH * low + iv.mpf([beyond - error, beyond + error])


ZIGGURAT = Ziggurat.table()
