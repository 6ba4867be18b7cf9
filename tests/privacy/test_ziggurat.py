"""What makes draws exactly normal: conditions that the table holds, with 60 digits."""

import mpmath
import pytest
from mpmath.ctx_iv import MPIntervalContext

from fedkd.privacy import ziggurat
from fedkd.privacy.ziggurat import BITS, MARGIN, REACH, REGIONS, ZIGGURAT


@pytest.fixture(scope="module")
def exact():
    """The area of a region, and the floors, of which the last is the top, by the definition."""
    with mpmath.workdps(60):
        low = density(mpmath.mpf(REACH))
        beyond = mpmath.quad(density, [REACH, 6, 10, 40])
        area = REACH * low + beyond
        floors = [mpmath.mpf(0), low]
        for width in ZIGGURAT.widths[1:]:
            floors.append(floors[-1] + area / mpmath.mpf(float(width)))
        yield area, floors


def density(x):
    return mpmath.exp(-(x**2) / 2)


def test_no_point_under_the_density_is_left_out(exact) -> None:
    area, floors = exact
    assert floors[-1] >= 1
    assert ZIGGURAT.widths[1] == REACH
    for width, floor in zip(ZIGGURAT.widths[2:], floors[2:], strict=False):
        assert density(mpmath.mpf(float(width))) <= floor
    # Of all that is drawn that much is under it, so hardly any point is drawn in vain.
    assert mpmath.sqrt(mpmath.pi / 2) / (area * REGIONS) > 0.998


def test_what_is_inside_is_under_the_density(exact) -> None:
    area, floors = exact
    unit = mpmath.mpf(2) ** -BITS
    below = float(ZIGGURAT.inside[0]) * unit * area / floors[1]
    assert 0.999 * REACH < below < REACH
    for region in range(1, REGIONS):
        # The furthest place of which the known bits are below the bound, and one more.
        x = (float(ZIGGURAT.inside[region]) + 1) * unit * mpmath.mpf(float(ZIGGURAT.widths[region]))
        assert ZIGGURAT.inside[region] == 0 or density(x) >= floors[region + 1]
    assert (ZIGGURAT.inside[1:-1] > 0).all()


def test_the_table_is_right_within_what_the_margin_allows(exact) -> None:
    area, floors = exact
    assert abs(ZIGGURAT.widths[0] - area / floors[1]) < MARGIN / 8
    for region in range(REGIONS):
        assert abs(float(ZIGGURAT.floors[region]) - floors[region]) < MARGIN / 8
        if region:
            height = area / mpmath.mpf(float(ZIGGURAT.widths[region]))
            assert abs(float(ZIGGURAT.heights[region]) - height) < MARGIN / 8
    assert (ZIGGURAT.units * 2.0**BITS == ZIGGURAT.widths).all()


@pytest.mark.parametrize("region", [0, 1, 2, 500, REGIONS - 1])
def test_intervals_hold_what_is_meant(exact, region: int) -> None:
    area, floors = exact
    iv = MPIntervalContext()
    iv.prec = 180
    with mpmath.workdps(60):
        meant = area / floors[1] if region == 0 else mpmath.mpf(float(ZIGGURAT.widths[region]))
        pairs = [(ziggurat.width(iv, region), meant)]
        if region:
            floor, height = ziggurat.floor_and_height(iv, region)
            pairs += [(floor, floors[region]), (height, area / meant)]
        for found, right in pairs:
            assert found.delta < mpmath.mpf(2) ** -150
            assert abs(mpmath.mpf(found.mid) - right) < mpmath.mpf(2) ** -150
