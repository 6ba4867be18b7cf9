"""What a data set tells of its records: classes, labels, numbers, or what is where in an image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedkd.data.readers.arrays import Array, FaultError
from fedkd.tasks import Targets
from fedkd.tasks.likelihoods.categorical import IGNORED

VOID = 255
"""In a mask of bytes: a pixel that does not count, as in Pascal VOC (Everingham et al. 2010)."""


class Limit(NamedTuple):
    """How many classes there may be, and why no more."""

    classes: int
    why: str


@dataclass(frozen=True)
class TargetForm:
    """How targets of one kind are read and counted.

    Attributes:
        read: (key, array, count, limit) -> the targets of `count` records, as `Targets` says;
            raises `FaultError`.
        outputs: targets -> how many classes, labels, numbers, points or items there are.
        counted: (targets, outputs) -> int64 (outputs,), how many of each there are.
        by_value: whether the largest value says how many there are, so that a part of the data may
            have fewer.
        fits: (key, targets, the shape of one input) -> nothing; raises `FaultError` where they are
            not of such inputs.
    """

    read: Callable[[str, Array, int, Limit], Tensor]
    outputs: Callable[[Tensor], int]
    counted: Callable[[Tensor, int], Tensor]
    by_value: bool = False
    fits: Callable[[str, Tensor, tuple[int, ...]], None] = lambda _key, _targets, _shape: None


def read(key: str, array: Array, count: int, targets: Targets, limit: Limit) -> Tensor:
    """An array as targets of `count` records, in the form of `fedkd.tasks.Targets`.

    Args:
        key: what the array is called.
        array: as `FORMS` has it for these targets.
        count: N.
        targets: what they are.
        limit: of classes.

    Raises:
        FaultError: a shape, a type or a value is another.
    """
    return FORMS[targets].read(key, array, count, limit)


def check_fit(key: str, y: Tensor, targets: Targets, shape: tuple[int, ...]) -> None:
    """Refuse targets that are not of inputs of this shape.

    Raises:
        FaultError: with what was expected.
    """
    FORMS[targets].fits(key, y, shape)


def most_classes(targets: Targets, count: int) -> Limit:
    """How many classes `count` records may have, before anything else is known of them."""
    if targets == "classes":
        # Larger labels are identifiers, for which a model would need as many outputs.
        return Limit(count, f"no more classes than {count} samples")
    return Limit(VOID, "numbers of classes, none of single objects")


def outputs(y: Tensor, targets: Targets) -> int:
    """How many classes, labels or numbers there are."""
    return FORMS[targets].outputs(y)


def counted(y: Tensor, targets: Targets, outputs: int) -> Tensor:
    """How many records have each class or label, or how many there are of each: (outputs,)."""
    return FORMS[targets].counted(y, outputs)


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


def _binary(key: str, array: Array, count: int, _limit: Limit) -> Tensor:
    """0 or 1 by label, (N, L): int64."""
    _check_kind(key, array, "biu", "0 or 1 by label, as integers or booleans")
    _check_shape(key, array, count, "0 or 1 by label for each sample", f"({count}, labels)", {2})
    check(key, (array != 0) & (array != 1), array, "0 or 1")
    return torch.from_numpy(array.astype(np.int64))


def _numbers(key: str, array: Array, count: int, _limit: Limit) -> Tensor:
    """Numbers (N,) or (N, D): float32 (N, D)."""
    _check_kind(key, array, "fiub", "numbers")
    expected = f"({count},) or ({count}, numbers)"
    _check_shape(key, array, count, "one or more numbers a sample", expected, {1, 2})
    with np.errstate(over="ignore"):
        values = array.astype(np.float32).reshape(count, -1)
    check(key, ~np.isfinite(values).reshape(array.shape), array, "a finite float32")
    return torch.from_numpy(values)


def mask(array: Array) -> NDArray[np.int64]:
    """A mask of classes as stored, (..., H, W): of bytes 255 is `IGNORED`."""
    classes = array.astype(np.int64)
    if array.dtype == np.uint8:
        classes[array == VOID] = IGNORED
    return classes


def _masks(key: str, array: Array, count: int, limit: Limit) -> Tensor:
    """int64 (count, H, W), each from 0 to below the limit, or `IGNORED`."""
    _check_kind(key, array, "biu", "a class for each pixel, as integers")
    _check_shape(key, array, count, "a class for each pixel", f"({count}, H, W)", {3})
    classes, most = mask(array), limit.classes
    wrong = (classes != IGNORED) & ((classes < 0) | (classes >= most))
    expected = f"0..{most - 1}, or {IGNORED} where a pixel does not count: {limit.why}"
    check(key, wrong, array, expected)
    return torch.from_numpy(classes)


def _of_image(key: str, masks: Tensor, shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or masks.shape[1:] != shape[1:]:
        height, width = masks.shape[1:]
        raise FaultError(
            f"{key} has masks of {height}x{width} pixels, and an input has shape {shape}; expected "
            "images (C, H, W), and masks as high and wide as they are"
        )


def _check_shape(
    key: str, array: Array, count: int, what: str, expected: str, axes: set[int]
) -> None:
    if array.ndim not in axes or len(array) != count or array.size == 0:
        raise FaultError(f"{key} has shape {array.shape}; expected {expected}, {what}")


def _check_kind(key: str, array: Array, kinds: str, expected: str) -> None:
    if array.dtype.kind not in kinds:
        raise FaultError(f"{key} is {array.dtype}; expected {expected}")


FORMS: dict[Targets, TargetForm] = {
    "classes": TargetForm(
        _classes,
        outputs=lambda y: int(y.max()) + 1,
        counted=lambda y, outputs: torch.bincount(y, minlength=outputs),
        by_value=True,
    ),
    "binary": TargetForm(
        _binary,
        outputs=lambda y: y.shape[1],
        counted=lambda y, _outputs: y.sum(dim=0),
    ),
    "numbers": TargetForm(
        _numbers,
        outputs=lambda y: y.shape[1],
        counted=lambda y, _outputs: torch.full(y.shape[1:], len(y)),
    ),
    "masks": TargetForm(
        _masks,
        outputs=lambda y: int(y.max()) + 1,
        counted=lambda y, outputs: torch.bincount(y[y != IGNORED], minlength=outputs),
        by_value=True,
        fits=_of_image,
    ),
}
"""Every kind of targets, by name."""
