"""The ROC of attacks, drawn on log axes, with the most that a claim allows."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from fedkd.auditing.membership import Attack
from fedkd.auditing.roc import RATES, most_tpr
from fedkd.auditing.verdicts import Claim
from fedkd.reports.charts.drawing import FORBIDDEN, INK, MUTED, SERIES, WIDE, Chart, chart
from fedkd.reports.wording import listing

_LEAST = 1e-3
_HEIGHTS = (440.0, 380.0)


def roc_chart(name: str, attacks: Sequence[Attack], claim: Claim | None) -> Chart:
    """Attacks on one target; true positives against false ones, both from 0.1%.

    Args:
        name: unique in the page.
        attacks: at least one, all on the same target.
        claim: what was spent; None where nothing is claimed.
    """
    grid = np.logspace(np.log10(_LEAST), 0, 200)
    allowed = None if claim is None else most_tpr(grid, claim.curve())

    def draw(axes: Axes, width: int) -> None:
        axes.set_xscale("log")
        axes.set_yscale("log")
        if allowed is not None:
            axes.fill_between(grid, np.maximum(allowed, _LEAST), 1.0, color=FORBIDDEN, linewidth=0)
            axes.plot(grid, np.maximum(allowed, _LEAST), color=INK, linewidth=1.2, linestyle="--")
        axes.plot(grid, grid, color=MUTED, linewidth=1.0, linestyle=":")
        for number, each in enumerate(attacks):
            _curve(axes, each, SERIES[number % len(SERIES)], 1 + 0.04 * (number - 1))
        axes.set_xlim(_LEAST, 1)
        axes.set_ylim(_LEAST, 1.02)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
            axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
        axes.set_xlabel("false positives")
        axes.set_ylabel("true positives")
        _names(axes, attacks, claimed=allowed is not None, wide=width == WIDE)

    title = f"Who was in the data? Attacks on {attacks[0].on}"
    return chart(name, title, _caption(attacks, claim), draw, heights=_HEIGHTS)


def _curve(axes: Axes, each: Attack, colour: str, shift: float) -> None:
    curve = each.roc
    seen = np.maximum(curve.tpr, _LEAST / 2)
    axes.step(np.maximum(curve.fpr, _LEAST / 2), seen, where="post", color=colour, linewidth=1.8)
    for rate in RATES:
        at = curve.at[rate]
        if at is not None:
            below, above = at.value - max(at.low, _LEAST / 2), at.high - at.value
            place = min(1.0, max(_LEAST * 1.03, rate * shift))
            value = max(at.value, _LEAST)
            axes.errorbar(
                place, value, yerr=[[max(0.0, below)], [above]], fmt="o", markersize=5,
                color=colour, capsize=3, linewidth=1.4,
            )  # fmt: skip


def _names(axes: Axes, attacks: Sequence[Attack], *, claimed: bool, wide: bool) -> None:
    """Name each line in a list at the lower right, where every curve has left."""
    entries = [
        (f"{each.name}: AUC {each.roc.auc.value:.3f}", SERIES[number % len(SERIES)])
        for number, each in enumerate(attacks)
    ]
    entries.append(("chance", MUTED))
    if claimed:
        entries.append(("shaded: more than the claim allows", INK))
    for row, (text, colour) in enumerate(reversed(entries)):
        axes.annotate(
            text, (0.985, 0.04 + row * (0.055 if wide else 0.065)), xycoords="axes fraction",
            ha="right", color=colour,
        )  # fmt: skip


def _caption(attacks: Sequence[Attack], claim: Claim | None) -> str:
    best = max(attacks, key=lambda each: each.roc.auc.value)
    area = best.roc.auc
    text = (
        f"The best of these, {best.name}, tells a member from another record "
        f"{100 * area.value:.1f}% of the time (95%: {100 * area.low:.1f} to {100 * area.high:.1f}; "
        "50 is chance)."
    )
    bars = _bars(attacks)
    if claim is None:
        return f"{text} {bars} Nothing is claimed: NO DP, so any curve is allowed."
    return f"{text} {bars} The claim is {claim}; what it forbids is shaded."


def _bars(attacks: Sequence[Attack]) -> str:
    """What the bars are, as far as there are any: few records allow none."""
    drawn = [rate for rate in RATES if any(each.roc.at[rate] is not None for each in attacks)]
    if not drawn:
        return "There are too few records for an interval at 1% false positives."
    return f"Bars: 95% intervals at {listing([f'{100 * r:g}%' for r in drawn])} false positives."
