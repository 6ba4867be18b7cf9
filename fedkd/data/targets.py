"""What a data set tells of its records: classes, yes or no by label, or numbers."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedkd.data.readers.arrays import Array, FaultError
from fedkd.tasks import Targets


class Limit(NamedTuple):
    """How many classes there may be, and why no more."""

    classes: int
    why: str


def read(key: str, array: Array, count: int, targets: Targets, limit: Limit) -> Tensor:
    """An array as targets of `count` records, in the form of `fedkd.tasks.Targets`.

    Args:
        key: what the array is called.
        array: classes (N,), as integers from 0; 0 or 1 by label, (N, L); numbers (N,) or (N, D).
        count: N.
        targets: which of the three they are.
        limit: of classes.

    Returns:
        int64 (N,), int64 (N, L), or float32 (N, D); a single number a record is (N, 1).

    Raises:
        FaultError: a shape, a type or a value is another.
    """
    if targets == "classes":
        return _classes(key, array, count, limit)
    if targets == "binary":
        _check_kind(key, array, "biu", "0 or 1 by label, as integers or booleans")
        _check_shape(
            key, array, count, "0 or 1 by label for each sample", f"({count}, labels)", {2}
        )
        check(key, (array != 0) & (array != 1), array, "0 or 1")
        return torch.from_numpy(array.astype(np.int64))
    _check_kind(key, array, "fiub", "numbers")
    expected = f"({count},) or ({count}, numbers)"
    _check_shape(key, array, count, "one or more numbers a sample", expected, {1, 2})
    with np.errstate(over="ignore"):
        values = array.astype(np.float32).reshape(count, -1)
    check(key, ~np.isfinite(values).reshape(array.shape), array, "a finite float32")
    return torch.from_numpy(values)


def outputs(y: Tensor, targets: Targets) -> int:
    """How many classes, labels or numbers there are."""
    return int(y.max()) + 1 if targets == "classes" else y.shape[1]


def check(
    key: str, wrong: NDArray[np.bool_], values: Array, expected: str, *, start: int = 0
) -> None:
    """Complain about the first value marked as wrong; the first row's number is `start`."""
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = (start + index[0], *index[1:])
        where = place[0] if len(place) == 1 else place
        raise FaultError(f"{key} is {values[index]} at index {where}; expected {expected}")


def _classes(key: str, array: Array, count: int, limit: Limit) -> Tensor:
    """int64 (count,), each from 0 to below the limit."""
    _check_shape(key, array, count, "one label a sample", f"({count},)", {1})
    if array.dtype.kind not in "iu":
        raise FaultError(
            f"{key} is {array.dtype}, {array[0]} at index 0; expected integers from 0, as int64"
        )
    most = limit.classes
    check(key, (array < 0) | (array >= most), array, f"0..{most - 1}: {limit.why}")
    return torch.from_numpy(array.astype(np.int64))


def _check_shape(
    key: str, array: Array, count: int, what: str, expected: str, axes: set[int]
) -> None:
    if array.ndim not in axes or len(array) != count or array.size == 0:
        raise FaultError(f"{key} has shape {array.shape}; expected {expected}, {what}")


def _check_kind(key: str, array: Array, kinds: str, expected: str) -> None:
    if array.dtype.kind not in kinds:
        raise FaultError(f"{key} is {array.dtype}; expected {expected}")
