"""A user's own data in one .npz file."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedkd.data.types import Dataset, Samples
from fedkd.errors import DataError
from fedkd.names import choices

Array = NDArray[Any]

_REQUIRED = ("x_train", "y_train", "x_test", "y_test")
_GROUPS = "client_train"
_LARGE, _MOST_PACKED = 250_000_000, 50
"""In bytes, and how many times as large: an array above both is refused before it fills memory."""
_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
# What numpy and zipfile raise on damaged files, found by flipping bytes.
_UNREADABLE = (ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def load(path: Path) -> Dataset:
    """Read `x_train, y_train, x_test, y_test` and, if there, `client_train` from an .npz file.

    Images are (N, H, W), (N, H, W, C) or (N, C, H, W) with C one of 1, 3 and 4, as uint8 or as
    floats in [0, 1]; rows of features are (N, F). uint8 is divided by 255 whatever its shape.
    Labels are integers from 0; the largest training label says how many classes there are.
    `client_train` says whose each training sample is, as integers or strings; clients are numbered
    in sorted order.

    Raises:
        DataError: names the file, the array and, where one value is wrong, its index.
    """
    try:
        return _dataset(path, _arrays(path))
    except _FaultError as fault:
        # A damaged file's own keys and numpy's messages may break the line.
        raise DataError(f"{path}: {' '.join(str(fault).split())}") from fault


def load_rows(path: Path, *, classes: int) -> Samples:
    """Read a party's own `x_train` and `y_train` from an .npz file, in the same forms as `load`.

    Args:
        path: what else the file holds is left out.
        classes: C; labels are 0..C-1.

    Raises:
        DataError: as `load`.
    """
    try:
        arrays = _arrays(path, ("x_train", "y_train"))
        x = _inputs("x_train", arrays["x_train"])
        why = "the classes that the parties agreed on"
        return Samples(x, _labels("y_train", arrays, len(x), limit=classes, why=why))
    except _FaultError as fault:
        raise DataError(f"{path}: {' '.join(str(fault).split())}") from fault


class _FaultError(Exception):
    """What is wrong with the file, without its name."""


def _arrays(path: Path, required: tuple[str, ...] = _REQUIRED) -> dict[str, Array]:
    """Those arrays of the file that fedkd knows, by key."""
    try:
        # Opened here, because numpy leaves a file that it opened open when it is no zip.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise _FaultError("is a single array; expected what numpy.savez writes")
            with file:
                return _wanted(file, required)
    except OSError as error:
        raise _FaultError(f"{error.strerror or error}; expected an .npz file") from error
    except _UNREADABLE as error:
        raise _FaultError(
            f"cannot be read as .npz ({error}); save plain arrays, no objects, by numpy.savez"
        ) from error


def _wanted(file: np.lib.npyio.NpzFile, required: tuple[str, ...]) -> dict[str, Array]:
    keys: list[str] = file.files
    # numpy finds an array under its key as well.
    wanted = {name for key in (*required, _GROUPS) for name in (key, f"{key}.npy")}
    for part in file.zip.infolist() if file.zip is not None else ():
        if part.filename in wanted and part.file_size > max(
            _LARGE, _MOST_PACKED * part.compress_size
        ):
            raise _FaultError(
                f"unpacks {part.filename} from {part.compress_size / 1e6:.3g} MB to "
                f"{part.file_size / 1e9:.3g} GB; if that is meant, save it by numpy.savez, without "
                "compression"
            )
    for key in required:
        if key not in keys:
            others = [other for other in keys if other not in required]
            held = list(keys) or ["nothing"]
            hint = choices(key, others, lead="it holds ", listed=held)
            raise _FaultError(f"has no array {key!r}: {hint}")
    return {key: file[key] for key in (*required, _GROUPS) if key in keys}


def _dataset(path: Path, arrays: Mapping[str, Array]) -> Dataset:
    x, x_test = (_inputs(key, arrays[key]) for key in ("x_train", "x_test"))
    if x.shape[1:] != x_test.shape[1:]:
        raise _FaultError(
            f"a sample of x_test has shape {tuple(x_test.shape[1:])}; expected "
            f"{tuple(x.shape[1:])} as in x_train (channels first)"
        )
    kinds = arrays["x_train"].dtype, arrays["x_test"].dtype
    if (kinds[0] == np.uint8) != (kinds[1] == np.uint8):
        raise _FaultError(
            f"x_train is {kinds[0]}, x_test {kinds[1]}, and only uint8 is divided by 255; "
            "store both as the same type"
        )
    # Larger labels are identifiers, for which a model would need as many outputs.
    y = _labels(
        "y_train", arrays, len(x), limit=len(x), why=f"no more classes than {len(x)} samples"
    )
    classes = int(y.max()) + 1
    why = "y_train's classes only; give training samples of it, or drop it"
    y_test = _labels("y_test", arrays, len(x_test), limit=classes, why=why)
    return Dataset(
        name=path.name,
        train=Samples(x, y),
        test=Samples(x_test, y_test),
        classes=classes,
        class_names=tuple(str(label) for label in range(classes)),
        groups=_groups(arrays[_GROUPS], len(x)) if _GROUPS in arrays else None,
    )


def _inputs(key: str, array: Array) -> Tensor:
    """Images as float32 (N, C, H, W) in [0, 1], rows as float32 (N, F)."""
    if array.ndim not in (2, 3, 4) or array.size == 0:
        raise _FaultError(
            f"{key} has shape {array.shape}; expected images (N, H, W), (N, H, W, C) or "
            "(N, C, H, W), or rows (N, F), and at least one"
        )
    images = array.ndim > 2
    if array.dtype.kind not in ("f" if images else "fiub") and array.dtype != np.uint8:
        expected = "uint8 or floats in [0, 1]" if images else "numbers"
        raise _FaultError(f"{key} is {array.dtype}; expected {expected}")
    with np.errstate(over="ignore"):
        values = np.asarray(array, dtype=np.float32)
    if array.dtype == np.uint8:
        values = values / np.float32(255)
    _check(key, ~np.isfinite(values), array, "a finite float32")
    if images and not 0 <= values.min() <= values.max() <= 1:
        raise _FaultError(
            f"{key} ranges from {values.min():g} to {values.max():g}; expected images within "
            "[0, 1]: rescale them, or store uint8"
        )
    if array.ndim == 3:
        values = values[:, None]
    elif array.ndim == 4 and _channels_last(key, array.shape):
        values = np.moveaxis(values, 3, 1)
    return torch.from_numpy(np.ascontiguousarray(values))


def _channels_last(key: str, shape: tuple[int, ...]) -> bool:
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first == last:
        which = "axes 1 and 3 could both" if first else "neither axis 1 nor axis 3 can"
        raise _FaultError(
            f"{key} has shape {shape}: {which} be the channels (1, 3 or 4); store grey images as "
            "(N, H, W), or pad or crop others until exactly one of these axes is 1, 3 or 4"
        )
    return last


def _labels(key: str, arrays: Mapping[str, Array], count: int, *, limit: int, why: str) -> Tensor:
    """int64 (count,), each from 0 to below `limit`."""
    array = arrays[key]
    if array.shape != (count,):
        raise _FaultError(f"{key} has shape {array.shape}; expected ({count},), one label a sample")
    if array.dtype.kind not in "iu":
        raise _FaultError(
            f"{key} is {array.dtype}, {array[0]} at index 0; expected integers from 0, as int64"
        )
    _check(key, (array < 0) | (array >= limit), array, f"0..{limit - 1}: {why}")
    return torch.from_numpy(array.astype(np.int64))


def _groups(array: Array, count: int) -> Tensor:
    """Whose each training sample is, numbered in sorted order: int64 (N_train,)."""
    if array.shape != (count,) or array.dtype.kind not in "iuU":
        raise _FaultError(
            f"{_GROUPS} is {array.dtype} of shape {array.shape}; expected ({count},), an integer "
            "or a string for each training sample"
        )
    return torch.from_numpy(np.unique(array, return_inverse=True)[1].astype(np.int64))


def _check(key: str, wrong: NDArray[np.bool_], values: Array, expected: str) -> None:
    """Complain about the first value marked as wrong."""
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = index[0] if len(index) == 1 else index
        raise _FaultError(f"{key} is {values[index]} at index {where}; expected {expected}")
