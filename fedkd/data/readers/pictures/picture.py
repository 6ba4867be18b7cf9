"""A picture as numbers, and cut into squares where it is large."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fedkd.data.readers.arrays import Array, FaultError
from fedkd.data.readers.pictures import medical

NIFTI = (".nii", ".nii.gz")
_MEDICAL = (".dcm", ".dicom", *NIFTI)
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".pgm", ".ppm", ".bmp", ".gif", ".webp",
    *_MEDICAL,
)  # fmt: skip
_FORMATS = ("PNG", "JPEG", "TIFF", "PPM", "BMP", "GIF", "WEBP")
"""What a file may be, whatever its name says: of other formats Pillow's reader may start a program
(PostScript), and a data set may be anybody's."""
_ORIENTATION = 0x0112
"""Of EXIF: how a camera was held; 1 is upright."""
_PLAIN = {"P": "RGB", "PA": "RGB", "RGBA": "RGB", "RGBX": "RGB", "CMYK": "RGB", "LA": "L", "1": "L"}
"""What is read of pictures with a palette, with ink in place of light, or with what shines
through them."""


@dataclass(frozen=True)
class Window:
    """A part of a picture, in pixels; it may reach beyond the picture below and to the right.

    Attributes:
        top: the first row.
        left: the first column.
        side: of the square.
        fresh_top: the first row that no earlier window has.
        fresh_left: the first column that no earlier window has.
    """

    top: int
    left: int
    side: int
    fresh_top: int
    fresh_left: int

    def of(self, array: Array, *, beyond: float) -> Array:
        """The part (side, side, ...) of an array (H, W, ...); what is beyond it is `beyond`."""
        part = array[self.top : self.top + self.side, self.left : self.left + self.side]
        missing = [(0, self.side - size) for size in part.shape[:2]]
        rest = [(0, 0)] * (part.ndim - 2)
        return np.pad(part, [*missing, *rest], constant_values=beyond)


def files(folder: Path) -> list[Path]:
    """The pictures in a folder itself, in the order of their names."""
    inside = (file for file in folder.iterdir() if not file.name.startswith("."))
    return sorted(file for file in inside if is_picture(file))


def is_picture(file: Path) -> bool:
    """Whether a file is a picture or a volume, by its name or as DICOM says it."""
    return file.name.lower().endswith(SUFFIXES) or medical.is_dicom(file)


def stem(file: Path) -> str:
    """A file's name without its ending: of `a.nii.gz` too it is `a`."""
    ending = next((e for e in sorted(SUFFIXES, key=len, reverse=True) if ends(file, e)), "")
    return file.name[: len(file.name) - len(ending)]


def ends(file: Path, ending: str) -> bool:
    """Whether a file's name ends so, in capitals or not."""
    return file.name.lower().endswith(ending)


def is_medical(file: Path) -> bool:
    """Whether a file is DICOM or NIfTI."""
    return file.name.lower().endswith(_MEDICAL) or medical.is_dicom(file)


def read(file: Path, *, plain: bool, turn: bool = True) -> NDArray[Any]:
    """A picture's values as stored: (H, W) of one channel, or (H, W, 3).

    Args:
        file: PNG, JPEG, TIFF, PGM, PPM, BMP, GIF or WebP, of one frame.
        plain: whether colours of a palette become red, green and blue, and what is beside colours
            is left out; else numbers are kept as they stand, for masks.
        turn: whether a picture that its EXIF says was taken with the camera turned is set upright,
            or refused, since what else is told of it may be of either.

    Raises:
        FaultError: it is damaged, no picture, too large, or has several frames.
    """
    return decoded(file.name, file, plain=plain, turn=turn)


def decoded(name: str, file: Path | BytesIO, *, plain: bool, turn: bool = True) -> NDArray[Any]:
    """As `read`, of a picture that may be in memory.

    Raises:
        FaultError: as `read`.
    """
    try:
        with opened(file) as picture:
            # A camera's MPO has a preview or another eye's view behind the picture itself.
            frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
            if frames > 1:
                raise FaultError(
                    f"{name} has {frames} frames; expected one: store each as its own file"
                )
            if picture.getexif().get(_ORIENTATION, 1) != 1:
                if not turn:
                    raise FaultError(
                        f"{name} is turned by its EXIF, and what is told of its places may be "
                        "turned or not: store it upright"
                    )
                ImageOps.exif_transpose(picture, in_place=True)
            known = plain and picture.mode in _PLAIN
            return np.asarray(picture.convert(_PLAIN[picture.mode]) if known else picture)
    except Image.DecompressionBombError as error:
        raise FaultError(
            f"{name} is too large ({error}); expected fewer pixels: cut it into several"
        ) from error
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
        raise FaultError(f"{name} cannot be read as a picture ({error})") from error


def opened(file: Path | BytesIO) -> Image.Image:
    """A picture of one of the formats that are read, its pixels not read yet."""
    return Image.open(file, formats=_FORMATS)


def as_inputs(
    name: str, values: Array, range: tuple[float, float] | None, *, cut: bool = False
) -> NDArray[np.float32]:
    """Values (H, W), (H, W, C) or (D, H, W, C) as float32 in [0, 1], with channels.

    Args:
        name: of the file.
        values: as stored.
        range: what becomes 0 and 1; None: 0 and the most that the type holds, and of floats 0
            and 1.
        cut: whether values outside are cut off.

    Raises:
        FaultError: a value is outside, or none at all.
    """
    if range is None:
        range = (0.0, float(np.iinfo(values.dtype).max)) if values.dtype.kind == "u" else (0.0, 1.0)
    low, high = range
    least, most = float(values.min()), float(values.max())
    if cut and math.isfinite(least) and math.isfinite(most):
        values = values.clip(low, high)
    elif not low <= least <= most <= high:
        raise FaultError(
            f"{name} has values from {least:g} to {most:g}; expected {low:g} to {high:g}: say "
            "data.range = [low, high], or have those outside cut off, data.window = [low, high]"
        )
    scaled = ((values.astype(np.float64) - low) / (high - low)).astype(np.float32)
    return scaled[:, :, None] if scaled.ndim == 2 else scaled


def windows(height: int, width: int, side: int) -> Iterator[Window]:
    """Squares that cover a picture, each pixel once: those at its end are moved back into it."""
    for top, fresh_top in _starts(height, side):
        for left, fresh_left in _starts(width, side):
            yield Window(top, left, side, fresh_top, fresh_left)


def _starts(length: int, side: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, side):
        yield max(0, min(start, length - side)), start
