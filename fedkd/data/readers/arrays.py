"""Arrays by name, from one .npz file or a folder of .npy files; large ones stay where they are."""

import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedkd.names import choices

Array = NDArray[Any]

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
GROUPS = "client_train"
_LARGE, _MOST_PACKED = 250_000_000, 50
"""In bytes, and how many times as large: an array above both is refused before it fills memory."""
LEFT = 100_000_000
"""In bytes: inputs above that are not packed are not read, but mapped. As float32, uint8 takes four
times as much, and twice that while it is dealt to clients."""
# What numpy and zipfile raise on damaged files, found by flipping bytes.
UNREADABLE = (ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
_CHUNK = 1 << 20


class FaultError(Exception):
    """What is wrong with a file, without its name."""


@dataclass(frozen=True, eq=False)
class Stored:
    """An array as it was stored.

    Attributes:
        array: in memory, or mirroring the file where that is read.
        mapped: whether it is in the file.
        release: gives memory back that mirrors the file.
    """

    array: Array
    mapped: bool = False
    release: Callable[[], None] = lambda: None


def read(path: Path, required: tuple[str, ...] = REQUIRED) -> dict[str, Stored]:
    """Those arrays of a file or a folder that fedkd knows, by name.

    Inputs may be several arrays, `x_train.NAME` for each column. In a folder each array is a file
    `x_train.npy`, and inputs are mapped; so are those of an .npz that are large and not packed.

    Args:
        path: of the .npz file or the folder.
        required: the names that must be there; `client_train` may be.

    Raises:
        FaultError: it is missing, damaged, or an array is.
    """
    try:
        if path.is_dir():
            return _folder(path, required)
        # Opened here, because numpy leaves a file that it opened open when it is no zip.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise FaultError("is a single array; expected what numpy.savez writes")
            with file:
                return _members(path, file, required)
    except OSError as error:
        expected = "an .npz file, or a folder of .npy files"
        raise FaultError(f"{error.strerror or error}; expected {expected}") from error
    except UNREADABLE as error:
        raise FaultError(
            f"cannot be read as .npz ({error}); save plain arrays, no objects, by numpy.savez"
        ) from error


def names(keys: Iterable[str], base: str) -> list[str]:
    """The arrays of one set of inputs: `x_train` itself, or `x_train.NAME` for each column."""
    return [key for key in keys if key == base or key.startswith(f"{base}.")]


def wanted(keys: list[str], required: tuple[str, ...]) -> list[str]:
    """Those keys that fedkd knows.

    Raises:
        FaultError: one is missing, or inputs are both one array and columns.
    """
    known = []
    for base in (*required, GROUPS):
        found = names(keys, base) if base.startswith("x_") else [k for k in keys if k == base]
        columns = [key for key in found if key != base]
        if base in found and columns:
            raise FaultError(
                f"has {base!r} and {columns[0]!r}: expected one array or columns alone; drop one, "
                f"or call it {base}.NAME as well"
            )
        if base in required and not found:
            others = [other for other in keys if other not in required]
            hint = choices(base, others, lead="it holds ", listed=keys or ["nothing"])
            raise FaultError(f"has no array {base!r}: {hint}")
        known += found
    return known


def _members(
    path: Path, file: np.lib.npyio.NpzFile, required: tuple[str, ...]
) -> dict[str, Stored]:
    archive = file.zip
    parts = {} if archive is None else {part.filename: part for part in archive.infolist()}
    for name, part in parts.items():
        known = name.removesuffix(".npy").split(".")[0] in {*required, GROUPS}
        if known and part.file_size > max(_LARGE, _MOST_PACKED * part.compress_size):
            raise FaultError(
                f"unpacks {name} from {part.compress_size / 1e6:.3g} MB to "
                f"{part.file_size / 1e9:.3g} GB; if that is meant, save it by numpy.savez, without "
                "compression"
            )
    found = {}
    for key in wanted(file.files, required):
        stored = parts.get(f"{key}.npy") if key.startswith("x_") else None
        if archive is not None and stored is not None and _stays(stored):
            found[key] = _mapped(path, key, _start(path, archive, stored), stored.file_size)
        else:
            found[key] = Stored(file[key])
    return found


def _stays(part: zipfile.ZipInfo) -> bool:
    """Whether a member is left in its file."""
    return part.file_size > LEFT and part.compress_type == zipfile.ZIP_STORED


def _start(path: Path, archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin, after their checksum was checked."""
    with archive.open(part) as member:
        while member.read(_CHUNK):
            pass
    with path.open("rb") as stream:
        stream.seek(part.header_offset)
        name, extra = struct.unpack("<26xHH", stream.read(30))
    return part.header_offset + 30 + int(name) + int(extra)


def _folder(path: Path, required: tuple[str, ...]) -> dict[str, Stored]:
    keys = sorted(file.name.removesuffix(".npy") for file in path.glob("*.npy"))
    found = {}
    for key in wanted(keys, required):
        file = path / f"{key}.npy"
        try:
            found[key] = (
                _mapped(file, key)
                if key.startswith("x_")
                else Stored(np.load(file, allow_pickle=False))
            )
        except UNREADABLE as error:
            raise FaultError(
                f"{key}.npy cannot be read ({error}); save a plain array, no objects, by numpy.save"
            ) from error
    return found


def _mapped(path: Path, key: str, start: int = 0, size: int | None = None) -> Stored:
    """The array whose .npy form is `size` bytes from byte `start` of a file, without reading it."""
    with path.open("rb") as stream:
        stream.seek(start)
        version = np.lib.format.read_magic(stream)
        header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, by_columns, dtype = header(stream)
        offset = stream.tell()
        memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    if dtype.hasobject or (by_columns and len(shape) > 1):
        raise FaultError(
            f"{key} holds objects, or stands column by column: save it by numpy.save of "
            "numpy.ascontiguousarray, as numbers"
        )
    count = math.prod(shape)
    if size is not None and offset + count * dtype.itemsize > start + size:
        raise FaultError(f"{key} says that its shape is {shape}, and its part of the file is less")
    array = np.frombuffer(memory, dtype, count, offset).reshape(shape)
    # Else the process seems to hold all that it ever read. Where the system knows no such call, it
    # takes pages back by itself.
    forget = getattr(mmap, "MADV_DONTNEED", None)
    if forget is None:
        return Stored(array, mapped=True)
    return Stored(array, mapped=True, release=partial(memory.madvise, forget))


def check(
    key: str, wrong: NDArray[np.bool_], values: Array, expected: str, *, start: int = 0
) -> None:
    """Complain about the first value marked as wrong; the first row's number is `start`."""
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = (start + index[0], *index[1:])
        where = place[0] if len(place) == 1 else place
        raise FaultError(f"{key} is {values[index]} at index {where}; expected {expected}")


def check_shape(
    key: str, array: Array, count: int, what: str, expected: str, axes: set[int]
) -> None:
    """Complain unless an array has `count` records, something in each, and as many axes."""
    if array.ndim not in axes or len(array) != count or array.size == 0:
        raise FaultError(f"{key} has shape {array.shape}; expected {expected}, {what}")


def check_kind(key: str, array: Array, kinds: str, expected: str) -> None:
    """Complain of an array whose type is of none of numpy's kinds."""
    if array.dtype.kind not in kinds:
        raise FaultError(f"{key} is {array.dtype}; expected {expected}")
