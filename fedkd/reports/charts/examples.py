"""Test records side by side: the image, what is true, and what models answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedkd.reports.charts.gallery import as_png
from fedkd.reports.wording import plural
from fedkd.runs.examples import Shown
from fedkd.tasks import Targets
from fedkd.tasks.boxes.geometry import PADDING
from fedkd.tasks.likelihoods.categorical import IGNORED

Pixels = NDArray[np.floating]
"""A picture (H, W, 3) of red, green and blue in [0, 1]."""
Painter = Callable[[Pixels, NDArray[np.generic]], Pixels]
"""An image and a target or a decided answer of one record to a picture of both, of any size."""

_COLOURS = ("#22303c", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
"""Those that the colour-blind can tell (Okabe & Ito 2008), the first class in the dark."""
_FIRST_BOX = 1
"""The colour of the first class of boxes: the dark one is for what is behind things."""
_WIDE, _LINE = 256, 2
"""Pixels of a picture with boxes or points, about, and of frames."""
_UNCOUNTED = "#999999"


@dataclass(frozen=True)
class Examples:
    """Records by row, columns by what is shown; a picture is a `data:` address."""

    kind: ClassVar = "examples"
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    legend: tuple[tuple[str, str], ...]
    caption: str


def colour(label: int) -> str:
    """A class's colour, as HTML has it; after eight they come again."""
    return _COLOURS[label % len(_COLOURS)]


def rgb(label: int) -> NDArray[np.float64]:
    """A class's colour, (3,) in [0, 1]."""
    return _shade(colour(label))


def masks(image: Pixels, mask: NDArray[np.generic]) -> Pixels:
    """Each pixel in its class's colour, grey where it does not count."""
    painted = np.empty_like(image)
    for label in np.unique(mask).tolist():
        painted[mask == label] = _shade(_UNCOUNTED) if label == IGNORED else rgb(label)
    return painted


def boxes(image: Pixels, found: NDArray[np.generic]) -> Pixels:
    """The image, large enough to see it, with a frame around each box in its class's colour."""
    painted, scale = _enlarged(image)
    for kind, *corners in found.tolist():
        if kind == PADDING:
            continue
        left, top, right, bottom = (round(value * scale) for value in corners)
        for inset in range(_LINE):
            rows = np.clip([top + inset, bottom - 1 - inset], 0, len(painted) - 1)
            columns = np.clip([left + inset, right - 1 - inset], 0, painted.shape[1] - 1)
            painted[rows, columns[0] : columns[1] + 1] = rgb(int(kind) + _FIRST_BOX)
            painted[rows[0] : rows[1] + 1, columns] = rgb(int(kind) + _FIRST_BOX)
    return painted


def points(image: Pixels, places: NDArray[np.generic]) -> Pixels:
    """The image, large enough to see it, with a square at each visible point (K, 3)."""
    painted, scale = _enlarged(image)
    for number, (x, y, visible) in enumerate(places.tolist()):
        column, row = int(scale * x), int(scale * y)
        for half, shade in ((4, np.zeros(3)), (3, rgb(number + 1))) if visible else ():
            rows, columns = (slice(max(0, at - half), at + half + 1) for at in (row, column))
            painted[rows, columns] = shade
    return painted


PAINTERS: Mapping[Targets, Painter] = {"masks": masks, "boxes": boxes, "points": points}
"""How targets and answers of a kind are painted."""


def examples(shown: Shown) -> Examples | None:
    """Arrange what a run folder shows; None where nothing paints its targets."""
    if shown.kind not in PAINTERS:
        return None
    paint, classes = PAINTERS[shown.kind], shown.classes
    columns = [shown.targets, *shown.answers.values()]
    rows = []
    for number, pixels in enumerate(_pixels(shown.x)):
        painted = [paint(pixels, column[number]) for column in columns]
        rows.append(tuple(map(as_png, (pixels, *painted))))
    used = sorted({int(label) for column in columns for label in _labels(shown.kind, column)})
    first = _FIRST_BOX if shown.kind == "boxes" else 0
    legend = [(classes[n], colour(n + first)) for n in used if 0 <= n < len(classes)]
    legend += [("does not count", _UNCOUNTED)] if IGNORED in used else []
    count = plural(len(rows), "record")
    return Examples(
        heads=("Image", "Truth", *shown.answers),
        rows=tuple(rows),
        legend=tuple(legend),
        caption=f"{count[0].upper()}{count[1:]} of the test set, taken from it at equal distances.",
    )


def _shade(code: str) -> NDArray[np.float64]:
    """A colour as HTML has it, (3,) in [0, 1]."""
    return np.array([int(code[at : at + 2], 16) for at in (1, 3, 5)]) / 255


def _labels(kind: Targets, column: NDArray[np.generic]) -> list[float]:
    """The classes that occur, if targets have such."""
    found = {"masks": column, "boxes": column[..., :1]}.get(kind)
    return [] if found is None else np.unique(found).tolist()


def _enlarged(image: Pixels) -> tuple[Pixels, int]:
    """A copy, and by how many times it is larger."""
    scale = max(1, round(_WIDE / image.shape[1]))
    return image.repeat(scale, axis=0).repeat(scale, axis=1), scale


def _pixels(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Images (n, C, H, W) as (n, H, W, 3) in [0, 1]: those of another range over all of theirs."""
    values = np.nan_to_num(x.astype(np.float64))
    least, most = min(values.min(), 0.0), max(values.max(), 1.0)
    values = (values - least) / (most - least)
    grey = np.repeat(values.mean(axis=1, keepdims=True), 3, axis=1)
    colours = values if values.shape[1] == 3 else grey
    return colours.transpose(0, 2, 3, 1)
