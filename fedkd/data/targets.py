"""What a data set tells of its records: classes, labels, numbers, or what is where in an image."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedkd.data.readers import points
from fedkd.data.readers.arrays import Array, FaultError, check, check_kind, check_shape
from fedkd.tasks import Targets
from fedkd.tasks.boxes.geometry import PADDING
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
        in_all: what all targets of a record are counted as, one number, where there are too many
            classes to count each; empty: each class is counted.
        own: whether a part of the data, such as the test set, may have classes of its own.
        fits: (key, targets, the shape of one input) -> nothing; raises `FaultError` where they are
            not of such inputs.
    """

    read: Callable[[str, Array, int, Limit], Tensor]
    outputs: Callable[[Tensor], int]
    counted: Callable[[Tensor, int], Tensor]
    by_value: bool = False
    in_all: str = ""
    own: bool = False
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
    if targets in ("classes", "identities"):
        # Larger labels are identifiers, for which a model would need as many outputs.
        return Limit(count, f"no more classes than {count} samples")
    return Limit(VOID, "numbers of classes, none of single objects")


def outputs(y: Tensor, targets: Targets) -> int:
    """How many classes, labels or numbers there are."""
    return FORMS[targets].outputs(y)


def counted(y: Tensor, targets: Targets, outputs: int) -> Tensor:
    """How many records have each class or label, or how many there are of each: (outputs,)."""
    return FORMS[targets].counted(y, outputs)


def counted_names(names: tuple[str, ...], targets: Targets) -> tuple[str, ...]:
    """What `counted` counts, by name: the classes, or one name for all of them."""
    in_all = FORMS[targets].in_all
    return (in_all,) if in_all else names


def _classes(key: str, array: Array, count: int, limit: Limit) -> Tensor:
    """int64 (count,), each from 0 to below the limit."""
    check_shape(key, array, count, "one label a sample", f"({count},)", {1})
    if array.dtype.kind not in "iu":
        raise FaultError(
            f"{key} is {array.dtype}, {array[0]} at index 0; expected integers from 0, as int64"
        )
    most = limit.classes
    check(key, (array < 0) | (array >= most), array, f"0..{most - 1}: {limit.why}")
    return torch.from_numpy(array.astype(np.int64))


def _binary(key: str, array: Array, count: int, _limit: Limit) -> Tensor:
    """0 or 1 by label, (N, L): int64."""
    check_kind(key, array, "biu", "0 or 1 by label, as integers or booleans")
    check_shape(key, array, count, "0 or 1 by label for each sample", f"({count}, labels)", {2})
    check(key, (array != 0) & (array != 1), array, "0 or 1")
    return torch.from_numpy(array.astype(np.int64))


def _numbers(key: str, array: Array, count: int, _limit: Limit) -> Tensor:
    """Numbers (N,) or (N, D): float32 (N, D)."""
    check_kind(key, array, "fiub", "numbers")
    expected = f"({count},) or ({count}, numbers)"
    check_shape(key, array, count, "one or more numbers a sample", expected, {1, 2})
    with np.errstate(over="ignore"):
        values = array.astype(np.float32).reshape(count, -1)
    check(key, ~np.isfinite(values).reshape(array.shape), array, "a finite float32")
    return torch.from_numpy(values)


def _items(key: str, array: Array, count: int, _limit: Limit) -> Tensor:
    """1 where an item was taken, 0 where it was not, -100 where it does not count: int64 (N, I)."""
    check_kind(key, array, "iub", "1, 0 or -100 by item, as integers")
    check_shape(key, array, count, "1, 0 or -100 by item for each user", f"({count}, items)", {2})
    known = (array == 0) | (array == 1) | (array == IGNORED)
    check(key, ~known, array, f"1 (taken), 0 (not) or {IGNORED} (does not count)")
    taken = (array == 1).any(axis=1)
    if not taken.all():
        raise FaultError(f"{key} has a user without items at index {int(taken.argmin())}; drop it")
    return torch.from_numpy(array.astype(np.int64))


def _of_history(key: str, items: Tensor, shape: tuple[int, ...]) -> None:
    if shape != (items.shape[1],):
        raise FaultError(
            f"{key} has {items.shape[1]} items a user, and an input has shape {shape}; expected "
            "the user's history, a number for each of these items"
        )


def mask(array: Array) -> NDArray[np.int64]:
    """A mask of classes as stored, (..., H, W): of bytes 255 is `IGNORED`."""
    classes = array.astype(np.int64)
    if array.dtype == np.uint8:
        classes[array == VOID] = IGNORED
    return classes


def _masks(key: str, array: Array, count: int, limit: Limit) -> Tensor:
    """int64 (count, H, W), each from 0 to below the limit, or `IGNORED`."""
    check_kind(key, array, "biu", "a class for each pixel, as integers")
    check_shape(key, array, count, "a class for each pixel", f"({count}, H, W)", {3})
    classes, most = mask(array), limit.classes
    wrong = (classes != IGNORED) & ((classes < 0) | (classes >= most))
    expected = f"0..{most - 1}, or {IGNORED} where a pixel does not count: {limit.why}"
    check(key, wrong, array, expected)
    if (classes == IGNORED).all():
        raise FaultError(f"{key} has no pixel that counts; expected a class in one at least")
    return torch.from_numpy(classes)


def _of_image(key: str, masks: Tensor, shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or masks.shape[1:] != shape[1:]:
        height, width = masks.shape[1:]
        raise FaultError(
            f"{key} has masks of {height}x{width} pixels, and an input has shape {shape}; expected "
            "images (C, H, W), and masks as high and wide as they are"
        )


def _boxes(key: str, array: Array, count: int, limit: Limit) -> Tensor:
    """float32 (count, M, 5): a class from 0 to below the limit, or `PADDING`, and four corners."""
    check_kind(key, array, "iuf", "boxes, as numbers")
    what = "boxes (class, left, top, right, bottom) of each sample"
    check_shape(key, array, count, what, f"({count}, boxes, 5)", {3})
    if array.shape[2] != 5:
        raise FaultError(f"{key} has shape {array.shape}; expected ({count}, boxes, 5), {what}")
    check(key, ~np.isfinite(array), array, "a finite number")
    kind, most = array[..., 0], limit.classes
    wrong = (kind != PADDING) & ((kind < 0) | (kind >= most) | (kind != np.floor(kind)))
    expected = f"a class 0..{most - 1}, or {PADDING} of a box that is none: {limit.why}"
    check(f"{key}[..., 0]", wrong, kind, expected)
    if (kind == PADDING).all():
        raise FaultError(f"{key} has no box; expected at least one")
    return torch.from_numpy(array.astype(np.float32))


def _in_image(key: str, boxes: Tensor, shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise FaultError(f"{key} holds boxes, and an input has shape {shape}; expected images")
    left, top, right, bottom = boxes[..., 1:].unbind(dim=-1)
    inside = (left >= 0) & (left < right) & (right <= shape[2])
    inside &= (top >= 0) & (top < bottom) & (bottom <= shape[1])
    outside = ((boxes[..., 0] != PADDING) & ~inside).nonzero().tolist()
    if outside:
        row, column = outside[0]
        corners = [round(value, 3) for value in boxes[row, column, 1:].tolist()]
        raise FaultError(
            f"{key} has the box {corners} in sample {row}, whose image is {shape[2]} pixels wide "
            f"and {shape[1]} high; expected left < right and top < bottom, inside the image"
        )


_CLASSES = TargetForm(
    _classes,
    outputs=lambda y: int(y.max()) + 1,
    counted=lambda y, outputs: torch.bincount(y, minlength=outputs),
    by_value=True,
)


def _tokens(key: str, array: Array, count: int, limit: Limit) -> Tensor:
    """A class for each token, int64 (count, L): from 0 to below the limit, or `IGNORED`."""
    check_kind(key, array, "iu", "a class for each token, as integers")
    check_shape(key, array, count, "a class for each token", f"({count}, L)", {2})
    wrong = (array != IGNORED) & ((array < 0) | (array >= limit.classes))
    expected = f"0..{limit.classes - 1}, or {IGNORED} where a token does not count: {limit.why}"
    check(key, wrong, array, expected)
    return torch.from_numpy(array.astype(np.int64))


_TOKENS = TargetForm(
    _tokens,
    outputs=lambda y: int(y.max()) + 1,
    counted=lambda y, outputs: torch.bincount(y[y != IGNORED], minlength=outputs),
    by_value=True,
)

_IN_ALL = replace(
    _TOKENS,
    counted=lambda y, _outputs: (y != IGNORED).sum().reshape(1),
    in_all="tokens",
)

FORMS: dict[Targets, TargetForm] = {
    "classes": _CLASSES,
    "identities": replace(_CLASSES, own=True),
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
    "items": TargetForm(
        _items,
        outputs=lambda y: y.shape[1],
        counted=lambda y, _outputs: (y == 1).sum(dim=0),
        fits=_of_history,
    ),
    "masks": TargetForm(
        _masks,
        outputs=lambda y: int(y.max()) + 1,
        counted=lambda y, outputs: torch.bincount(y[y != IGNORED], minlength=outputs),
        by_value=True,
        fits=_of_image,
    ),
    "boxes": TargetForm(
        _boxes,
        outputs=lambda y: int(y[..., 0].max()) + 1,
        counted=lambda y, outputs: torch.bincount(
            y[y[..., 0] != PADDING][:, 0].long(), minlength=outputs
        ),
        by_value=True,
        fits=_in_image,
    ),
    "points": TargetForm(
        lambda key, array, count, _limit: points.read(key, array, count),
        outputs=lambda y: y.shape[1],
        counted=lambda y, _outputs: y[..., 2].sum(dim=0).long(),
        fits=points.check_inside,
    ),
    "tags": _TOKENS,
    "spans": _IN_ALL,
    "tokens": _IN_ALL,
    "next-tokens": _IN_ALL,
}
"""Every kind of targets, by name."""
