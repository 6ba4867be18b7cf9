"""One look for every chart: colours, type and the way from a matplotlib figure to inline SVG.

Each chart is drawn twice, for a desk and for a phone, so that its text is never scaled down. A unit
of a figure is a CSS pixel. Text stays text; the page, not matplotlib, chooses its font.
"""

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

LEGIBLE = 30
"""The most clients that a chart draws one by one."""

WIDE, NARROW = 880, 358
"""Widths in CSS pixels; 358 is a 390-pixel phone less its margins."""

# Okabe and Ito's hues, safe for colour-blind readers, darkened to 4.5:1 on white.
STUDENT, TEACHERS, ENSEMBLE = "#0067a3", "#b34d00", "#007a58"
PALE_TEACHERS = "#e9cbb3"
INK, MUTED, FAINT = "#1d2230", "#5b6272", "#d9dce3"
# Methods get colours of their own, so that none is taken for the student.
SERIES = ("#3b2e8c", "#a8325e", "#806600", "#1a7585", "#8c4fb0", "#5b6272")
RAMP = LinearSegmentedColormap.from_list("ink", ["#f3f2f7", "#b9b3d3", "#6d63a0", "#2a2350"])

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.h_pad": 2 / 72,
    "figure.constrained_layout.w_pad": 2 / 72,
    "font.family": "DejaVu Sans",
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.major.pad": 6,
    "xtick.major.size": 0,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
}


@dataclass(frozen=True)
class Chart:
    """A chart for the page: its name in the page, what it is, what to see, and both drawings."""

    name: str
    title: str
    caption: str
    wide: Markup
    narrow: Markup


def chart(
    name: str,
    title: str,
    caption: str,
    draw: Callable[[Axes, int], None],
    *,
    heights: tuple[float, float],
) -> Chart:
    """Draw a chart at both widths.

    Args:
        name: unique in the page; the prefix of every id in the SVG.
        title: what the chart is.
        caption: one sentence that says what to see.
        draw: draws on the axes of a figure of the given width in pixels.
        heights: of the wide and of the narrow figure, in pixels.
    """
    wide, narrow = (
        _svg(f"{name}-{width}", draw, width, height)
        for width, height in zip((WIDE, NARROW), heights, strict=True)
    )
    return Chart(name, title, caption, wide, narrow)


def _svg(name: str, draw: Callable[[Axes, int], None], width: int, height: float) -> Markup:
    file = io.StringIO()
    with (
        rc_context({**_STYLE, "font.size": 13 if width == WIDE else 12, "svg.hashsalt": name}),
        warnings.catch_warnings(),
    ):
        # The browser draws a glyph that matplotlib's own font, used to measure only, lacks.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained", frameon=False)
        draw(figure.add_subplot(facecolor="none"), width)
        # Unlike figure.savefig, which draws once more to find a layout that is found here anyway.
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return Markup(_inline(file.getvalue(), name))  # noqa: S704 - matplotlib escapes its texts


def _inline(document: str, name: str) -> str:
    """An SVG document as an element of a page: no prologue, and ids that are unique in the page."""
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", document, flags=re.DOTALL)
    svg = re.sub(r"<[a-zA-Z][^<>]*>", lambda tag: _own_ids(tag[0], name), svg)
    return re.sub(
        r'^.*?<svg [^>]*?(viewBox="[^"]*")[^>]*>',
        r'<svg xmlns:xlink="http://www.w3.org/1999/xlink" \g<1>>',
        svg,
        count=1,
        flags=re.DOTALL,
    )


def _own_ids(tag: str, name: str) -> str:
    return re.sub(r'(\sid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", tag)
