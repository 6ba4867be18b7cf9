"""One look for every chart: colours, type and the way from a matplotlib figure to inline SVG.

Each chart is drawn twice, for a desk and for a phone, so that its text is never scaled down. A unit
of a figure is a CSS pixel. Text stays text; the page, not matplotlib, chooses its font. The page
chooses colours too: a colour in the SVG is a variable of the style sheet, which has others in the
dark, and the one drawn here where there is no style sheet.
"""

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from fedkd.reports.grid import Grid

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
UP, DOWN, TIME = "#4a4183", "#a39bc9", "#6b7285"
FORBIDDEN = "#f0e3e1"
# Of a heat map, which the style sheet turns round in the dark: on faint cells, on strong ones.
RAMP = LinearSegmentedColormap.from_list("ink", ["#f3f2f7", "#b9b3d3", "#6d63a0", "#2a2350"])
ON_FAINT, ON_STRONG, GAP = "#08080a", "#fdfdff", "#ffffff"

_VARIABLES = {
    STUDENT: "student",
    TEACHERS: "teachers",
    PALE_TEACHERS: "pale-teachers",
    ENSEMBLE: "ensemble",
    INK: "ink",
    MUTED: "muted",
    FAINT: "line",
    **{colour: f"series-{number}" for number, colour in enumerate(SERIES[:5])},
    UP: "up",
    DOWN: "down",
    TIME: "time",
    FORBIDDEN: "forbidden",
    ON_FAINT: "on-faint",
    ON_STRONG: "on-strong",
    GAP: "card",
}
"""What the style sheet calls each colour."""

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

    kind: ClassVar = "chart"
    name: str
    title: str
    caption: str
    wide: Markup
    narrow: Markup
    grid: Grid | None = None
    """The same in figures, where they stand nowhere else in the report."""

    @property
    def document(self) -> str:
        """The wide drawing as an SVG file of its own, on white; text in the viewer's own font."""
        svg = re.sub(r"var\(--[a-z0-9-]+, (#[0-9a-f]{6})\)", r"\g<1>", self.wide)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(self.title)}" '
            'font-family="sans-serif"'
        )
        ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
        return re.sub(r"^<svg([^>]*)>", rf"{head}\g<1>>\n{ground}", svg)


def chart(
    name: str,
    title: str,
    caption: str,
    draw: Callable[[Axes, int], None],
    *,
    heights: tuple[float, float],
    grid: Grid | None = None,
) -> Chart:
    """Draw a chart at both widths.

    Args:
        name: unique in the page; the prefix of every id in the SVG.
        title: what the chart is.
        caption: one sentence that says what to see.
        draw: draws on the axes of a figure of the given width in pixels.
        heights: of the wide and of the narrow figure, in pixels.
        grid: the same in figures.
    """
    wide, narrow = (
        _svg(f"{name}-{width}", draw, width, height)
        for width, height in zip((WIDE, NARROW), heights, strict=True)
    )
    return Chart(name, title, caption, wide, narrow, grid)


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
    svg = re.sub(r"<[a-zA-Z][^<>]*>", lambda tag: _variable(_own_ids(tag[0], name)), svg)
    return re.sub(
        r'^.*?<svg [^>]*?(viewBox="[^"]*")[^>]*>',
        r'<svg xmlns:xlink="http://www.w3.org/1999/xlink" \g<1>>',
        svg,
        count=1,
        flags=re.DOTALL,
    )


def _own_ids(tag: str, name: str) -> str:
    return re.sub(r'(\sid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", tag)


def _variable(tag: str) -> str:
    """Colours that have a name, by their name; others stay, so the same in the dark."""
    return re.sub(
        "#[0-9a-f]{6}",
        lambda found: (
            f"var(--{_VARIABLES[found[0]]}, {found[0]})" if found[0] in _VARIABLES else found[0]
        ),
        tag,
    )
