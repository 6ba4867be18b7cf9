"""What a picture or a volume becomes: values from 0 to 1, of one size and as many channels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedkd.config import PictureKeys
from fedkd.data.readers.arrays import Array
from fedkd.data.readers.pictures import medical, picture

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""How bright red, green and blue look: ITU-R BT.601, as Pillow has it."""
Size = tuple[int, int]


@dataclass(frozen=True)
class PictureForm:
    """How pictures are read.

    Attributes:
        range: what becomes 0 and 1; None: what the type holds.
        cut: whether values outside are cut off there, or refused.
        size: height and width to which all are brought; None: as they are.
        channels: 1, grey, or 3, red, green and blue; None: as they are.
        tile: the side of squares into which all are cut; None: not.
        slices: whether each slice of a volume is a record.
    """

    range: tuple[float, float] | None = None
    cut: bool = False
    size: Size | None = None
    channels: int | None = None
    tile: int | None = None
    slices: bool = False

    @classmethod
    def of(cls, keys: PictureKeys, *, range: tuple[float, float] | None, tile: int | None) -> Self:
        """As a configuration says, of an experiment or of a site."""
        size = (keys.size, keys.size) if isinstance(keys.size, int) else keys.size
        cut = keys.window is not None
        return cls(keys.window or range, cut, size, keys.channels, tile, keys.slices)

    def read(self, file: Path, *, turn: bool) -> NDArray[np.float32]:
        """Values in [0, 1], (H, W, C) or of a volume (D, H, W, C), as large as in the file.

        Args:
            file: see `picture.SUFFIXES`.
            turn: see `picture.read`.

        Raises:
            FaultError: it is damaged, or a value is outside.
            ConfigError: what reads it is not installed.
        """
        if picture.is_medical(file):
            return self.values(file.name, volume(file))
        return self.values(file.name, picture.read(file, plain=True, turn=turn))

    def values(self, name: str, stored: Array) -> NDArray[np.float32]:
        """What is stored in a picture of this name, as `read` returns it.

        Raises:
            FaultError: a value is outside.
        """
        values = picture.as_inputs(name, stored, self.range, cut=self.cut)
        if self.channels == 1 and values.shape[-1] == 3:
            return (values @ _LUMA)[..., None]
        if self.channels == 3 and values.shape[-1] == 1:
            return np.repeat(values, 3, axis=-1)
        return values


def volume(file: Path) -> Array:
    """A DICOM or NIfTI file, see `medical`."""
    return medical.nifti(file) if file.name.lower().endswith(picture.NIFTI) else medical.dicom(file)


def resized(values: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """Values (..., H, W, C) at another height and width; smaller ones are means, not samples."""
    flat = np.moveaxis(values, -1, -3).reshape(-1, *values.shape[-3:-1])
    height, width = size
    made = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
        for plane in np.ascontiguousarray(flat)
    ]
    stacked = np.stack(made).reshape(*values.shape[:-3], values.shape[-1], height, width)
    return np.ascontiguousarray(np.moveaxis(stacked, -3, -1))


def nearest(values: Array, size: Size) -> Array:
    """Classes (..., H, W) at another height and width: of each pixel, that of the nearest."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, values.shape[-2:], strict=True)
    )
    return values[..., rows[:, None], columns]


def slices(values: Array, *, axes: int) -> Iterator[Array]:
    """The slices of a volume, or a picture as it is; `axes` are those of a picture."""
    if values.ndim > axes:
        yield from values
    else:
        yield values
