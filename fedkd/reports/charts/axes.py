"""Axes of the charts: frames, and names where lines end."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fedkd.tasks import Figures


def frame_score(axes: Axes, score: Figures) -> None:
    """The score on y, shares framed to the nearest ten per cent around them; whole rounds on x."""
    low, high = axes.dataLim.intervaly
    if score.share:
        low, high = (low, high) if low <= high else (0.0, 1.0)  # nothing is drawn
        axes.set_ylim(max(0, np.floor(low * 10) / 10), min(1, np.ceil(high * 10) / 10) + 0.005)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.locator_params(axis="y", nbins=6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.margins(x=0.02)
    axes.grid(visible=False, axis="x")


def label_ends(
    axes: Axes,
    ends: Sequence[tuple[str, float, str]],
    *,
    height: float,
    form: Callable[[float], str],
) -> None:
    """Name each line where it ends, at the right: (name, value, colour).

    `height` is the figure's, in pixels; names that would collide move apart. `form` says a value in
    words.
    """
    low, high = axes.get_ylim()
    ends = [end for end in ends if not math.isnan(end[1])]
    places = spread([value for _, value, _ in ends], 18 * (high - low) / (height - 60))
    for (name, value, colour), place in zip(ends, places, strict=True):
        axes.annotate(
            f"{name} {form(value)}",
            (1.01, place),
            xycoords=axes.get_yaxis_transform(),
            color=colour,
            va="center",
            fontweight="bold" if name == "Student" else "normal",
            annotation_clip=False,
        )


def score_axis(axes: Axes, score: Figures) -> None:
    """The score on x: shares as percentages from 0 to 100."""
    axes.grid(visible=False, axis="y")
    axes.spines["bottom"].set_visible(False)
    if not score.share:
        axes.locator_params(axis="x", nbins=5)
        return
    axes.set_xlim(0, 1.0)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Move label positions apart, each as little as its neighbours allow, to at least `gap`.

    Labels that collide form a block, centred on the mean of where they wanted to be.
    """

    def lowest(block: Sequence[int]) -> float:
        return sum(positions[i] for i in block) / len(block) - gap * (len(block) - 1) / 2

    blocks: list[list[int]] = []
    for index in sorted(range(len(positions)), key=positions.__getitem__):
        block = [index]
        while blocks and lowest(blocks[-1]) + gap * len(blocks[-1]) > lowest(block):
            block = blocks.pop() + block
        blocks.append(block)
    places = {i: lowest(block) + gap * n for block in blocks for n, i in enumerate(block)}
    return [places[i] for i in range(len(positions))]
