"""MATLAB files of version 5, read by scipy.

scipy runs nothing that a file holds, but a damaged one may crash the process (it warns so itself).
So only bytes whose digest was checked are given to it.
"""

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedkd.data.readers.arrays import Array, FaultError

_DAMAGES = (
    ValueError, TypeError, NotImplementedError, OSError, EOFError, LookupError, AttributeError,
    ArithmeticError, MemoryError, struct.error, zlib.error,
)  # fmt: skip


def read(content: bytes, names: tuple[str, ...]) -> dict[str, Array]:
    """The variables called `names`, of a file that is known to be the official one.

    Raises:
        FaultError: the file is damaged, is of another version, or lacks one.
    """
    # Here, because it takes a third of a second that all other data would wait for.
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found: dict[str, Any] = loadmat(io.BytesIO(content), variable_names=names)
    except (MatReadError, *_DAMAGES) as error:
        text = " ".join(str(error).split())
        raise FaultError(f"cannot be read as a .mat file of version 5 ({text})") from error
    if lacking := [name for name in names if not isinstance(found.get(name), np.ndarray)]:
        raise FaultError(f"lacks the variable {lacking[0]!r}")
    return {name: found[name] for name in names}


def field(struct_array: Array, *path: str) -> Array:
    """A field of a field of a structure; each structure is an array of one record.

    Raises:
        FaultError: it is not there.
    """
    found: Any = struct_array
    for number, name in enumerate(path):
        names = found.dtype.names if isinstance(found, np.ndarray) else None
        if names is None or name not in names or found.size != 1:
            raise FaultError(f"lacks the field {'.'.join(path[: number + 1])!r}")
        found = found.reshape(-1)[0][name]
    if not isinstance(found, np.ndarray):
        raise FaultError(f"has no array in the field {'.'.join(path)!r}")
    return found


def has_field(struct_array: Array, *path: str) -> bool:
    """Whether `field` finds one."""
    try:
        field(struct_array, *path)
    except FaultError:
        return False
    return True


def integers(name: str, array: Array) -> NDArray[np.int64]:
    """Whole numbers, which MATLAB may have written as floats, as one column.

    Raises:
        FaultError: one is not whole.
    """
    flat = array.reshape(-1)
    if flat.dtype.kind not in "iuf" or not np.array_equal(flat, np.floor(flat)):
        raise FaultError(f"{name} are {array.dtype}; expected whole numbers")
    return flat.astype(np.int64)
