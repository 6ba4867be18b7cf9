"""The generator's images by class, as small pictures for the page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from fedkd.reports.wording import percent, plural
from fedkd.runs.schema import Generated

PER_CLASS = 8


@dataclass(frozen=True)
class Strip:
    """The images made for one class, side by side in one PNG, as a `data:` address."""

    label: str
    images: int
    width: int
    height: int
    source: str


@dataclass(frozen=True)
class Gallery:
    """Strips of images, and what to see in them."""

    kind: ClassVar = "gallery"
    strips: tuple[Strip, ...]
    caption: str
    alt: str = "{count} generated images for {name}"
    """What a strip shows, for who does not see it."""


def gallery(generated: Generated, classes: Sequence[str]) -> Gallery:
    """Arrange generated images by the class they were made for, up to `PER_CLASS` each."""
    pixels = np.nan_to_num(generated.x.astype(np.float64)).clip(0, 1)
    strips, spreads = [], {}
    for label in np.unique(generated.y).tolist():
        name = classes[label] if 0 <= label < len(classes) else f"class {label}"
        images = pixels[generated.y == label]
        spreads[name] = float(images.std(axis=0).mean())
        strips.append(strip(name, images[:PER_CLASS]))
    return Gallery(tuple(strips), _variety(len(pixels), spreads))


def strip(name: str, images: NDArray[np.float64]) -> Strip:
    """Images (n, C, H, W) in [0, 1], side by side."""
    grey = images.mean(axis=1, keepdims=True)
    colour = images if images.shape[1] == 3 else np.repeat(grey, 3, axis=1)
    row = np.concatenate(
        np.pad(colour, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1), axis=2
    )
    row = row[:, :, :-1].transpose(1, 2, 0)
    return Strip(name, len(images), row.shape[1], row.shape[0], as_png(row))


def as_png(pixels: NDArray[np.floating]) -> str:
    """A picture (H, W, 3) in [0, 1] as a `data:` address."""
    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(pixels), format="png", metadata={"Software": "fedkd"})
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _variety(count: int, spreads: dict[str, float]) -> str:
    text = f"{count:,} image{'s' * (count > 1)} from the generator, none of them a client’s"
    if len(spreads) < 2:
        return f"{text}."
    least, most = min(spreads, key=spreads.__getitem__), max(spreads, key=spreads.__getitem__)
    return (
        f"{text}, for {plural(len(spreads), 'class')}: those made for {least} differ least among "
        f"themselves (by {percent(spreads[least])} of a pixel's range), those for {most} most "
        f"({percent(spreads[most])})."
    )
