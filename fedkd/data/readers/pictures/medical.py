"""Medical pictures and volumes: DICOM by pydicom, NIfTI by nibabel, where these are installed.

Of a DICOM file pixels are read, and what says how they are stored; windows that its header proposes
are not, since parties would look through unlike ones, nor is anything about a patient.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fedkd import optional
from fedkd.data.readers.arrays import Array, FaultError
from fedkd.errors import ConfigError

_MAGIC = b"DICM"
"""Of a DICOM file, after 128 bytes of anything."""
_LARGE, _MOST_PACKED = 4_000_000_000, 50
"""In bytes, and how many times as large: a volume above both is refused before it fills memory."""


def is_dicom(file: Path) -> bool:
    """Whether a file without an ending is DICOM, as scanners write them."""
    if file.suffix or not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(132)[128:] == _MAGIC


def dicom(file: Path) -> Array:
    """The pixels of a DICOM file, by its rescale slope and intercept: of CT in Hounsfield units.

    Returns:
        (H, W, C) or, of several frames, (D, H, W, C); bytes as uint8, all else as float32.

    Raises:
        FaultError: it is damaged, or compressed in a way for which pydicom has no library here.
        ConfigError: pydicom is not installed.
    """
    library = optional.load("pydicom", extra="medical")
    pixels = optional.load("pydicom.pixels", extra="medical")

    def read() -> Array:
        found = library.dcmread(file)
        values: Array = found.pixel_array
        kind = str(found.PhotometricInterpretation)
        if kind == "PALETTE COLOR":
            values, kind = pixels.apply_color_lut(values, found), "RGB"
            values = (values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values
        if kind == "MONOCHROME1":  # its least value is the brightest
            values = (1 << int(found.BitsStored)) - 1 - values.astype(np.int64)
            values = values.astype(np.uint8) if int(found.BitsStored) <= 8 else values
        if kind.startswith("MONOCHROME"):
            values = pixels.apply_modality_lut(values, found)[..., None]
        return values if values.dtype == np.uint8 else values.astype(np.float32)

    return _read(file, "DICOM", read)


def nifti(file: Path) -> Array:
    """The values of a NIfTI volume, by its slope and intercept.

    Returns:
        (D, H, W, 1), from feet to head, from front to back and from left to right, whatever the
        order in the file; (H, W, 1) of one slice. Bytes as uint8, all else as float32.

    Raises:
        FaultError: it is damaged, or a series of volumes.
        ConfigError: nibabel is not installed.
    """
    library = optional.load("nibabel", extra="medical")

    def read() -> Array:
        stored = library.load(file)
        size, packed = math.prod(stored.shape) * stored.get_data_dtype().itemsize, file.stat()
        if size > max(_LARGE, _MOST_PACKED * packed.st_size):
            raise FaultError(
                f"{file.name} unpacks from {packed.st_size / 1e6:.3g} MB to {size / 1e9:.3g} GB; "
                "if that is meant, store it as .nii, without compression"
            )
        found = library.as_closest_canonical(stored)
        values = np.asarray(found.dataobj)
        if values.ndim == 4 and values.shape[3] == 1:
            values = values[..., 0]
        if values.ndim != 3 or values.dtype.kind not in "iuf":
            raise FaultError(
                f"{file.name} has {values.dtype} of shape {values.shape}; expected one volume of "
                "numbers (X, Y, Z): store each volume of a series as its own file"
            )
        values = values.transpose(2, 1, 0)[:, ::-1, :, None]
        values = values[0] if len(values) == 1 else values
        return values if values.dtype == np.uint8 else values.astype(np.float32)

    return _read(file, "NIfTI", read)


def _read(file: Path, what: str, read: Callable[[], Any]) -> Array:
    try:
        values: Array = read()
    except (FaultError, ConfigError):
        raise
    except Exception as error:  # whatever the library says of a file that it cannot read
        raise FaultError(f"{file.name} cannot be read as {what} ({error})") from error
    return values
