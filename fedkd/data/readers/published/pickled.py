"""A reader of pickles that holds plain values and arrays of bytes, and runs nothing that they name.

A pickle is a program. This reader knows three names, those by which numpy's arrays are written, and
puts stand-ins of its own in their place, so that not even numpy's code runs on what a file says.
"""

import io
import math
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedkd.data.readers.arrays import FaultError

_BYTES = (b"u1", "u1")
_DAMAGES = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError,
    OverflowError, MemoryError, ImportError, RecursionError,
)  # fmt: skip


class _Kind:
    """Stands in for `numpy.dtype`; of unsigned bytes alone."""

    def __init__(self, name: object, *_: object) -> None:
        if name not in _BYTES:
            raise pickle.UnpicklingError(f"an array of type {name!r}; expected unsigned bytes")

    def __setstate__(self, state: object) -> None:
        """Order of bytes and the like, which bytes have none of."""


class _Array:
    """Stands in for an array, and for numpy's `_reconstruct`, which makes an empty one first.

    Attributes:
        values: once its state was read.
    """

    values: NDArray[np.uint8] | None = None

    def __init__(self, *_: object) -> None:
        """What the empty one should be like is said again by the state."""

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple(shape), _Kind(), bool() | int() as by_columns, bytes(content)):
                pass
            case _:
                raise pickle.UnpicklingError("an array whose state is not numpy's")
        sizes = all(isinstance(size, int) and size >= 0 for size in shape)
        if not sizes or math.prod(shape) != len(content):
            raise pickle.UnpicklingError(f"an array of shape {shape} in {len(content)} bytes")
        flat = np.frombuffer(content, np.uint8)
        self.values = flat.reshape(shape, order="F" if by_columns else "C")


# Classes and no functions: a pickle may set attributes of a function that it names.
_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
}


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """One of the stand-ins; all else a pickle could call is refused."""
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}; expected plain values and numpy arrays, and code is "
                "not run"
            )
        return _KNOWN[module, name]

    def persistent_load(self, pid: object) -> Any:
        """Refuse what lies outside of the file."""
        raise pickle.UnpicklingError(f"it names {pid!r} outside of it")


def read(content: bytes) -> dict[bytes, Any]:
    """A dictionary of plain values and uint8 arrays, with keys and texts as bytes (Python 2's).

    Raises:
        FaultError: it names anything to be run, is damaged, or is no dictionary.
    """
    try:
        found = _Plain(io.BytesIO(content), encoding="bytes").load()
    except _DAMAGES as error:
        raise FaultError(f"cannot be read as a pickle of arrays ({error})") from error
    if not isinstance(found, dict):
        raise FaultError(f"holds a {type(found).__name__}; expected a dictionary")
    return {
        key: value.values if isinstance(value, _Array) else value for key, value in found.items()
    }
