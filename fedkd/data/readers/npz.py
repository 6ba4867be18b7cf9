"""A user's own data as arrays of any shape: one .npz file, or a folder of .npy files."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from fedkd import config
from fedkd.data import targets
from fedkd.data.readers import arrays
from fedkd.data.readers.arrays import GROUPS, Array, FaultError, Stored
from fedkd.data.targets import Limit
from fedkd.data.types import Dataset, Limits, Samples
from fedkd.errors import DataError
from fedkd.rows import Mapped, Rows, Table, shapes_of
from fedkd.tasks import Targets

_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
_AT_ONCE = 8_000_000
"""How many bytes of an array are looked at together."""
_Axes = Literal["as they are", "one more", "channels last"]


@dataclass(frozen=True)
class ArrayForm:
    """How inputs are stored.

    Attributes:
        layout: as `config.Source.layout`.
        range: as `config.Source.range`.
        unbounded: whether values outside [0, 1] are scaled later, by the proxy set.
    """

    layout: config.Layout | None = None
    range: Limits | None = None
    unbounded: bool = False

    @classmethod
    def of(cls, source: config.Source) -> Self:
        """As the section `[data]` says."""
        public = isinstance(source, config.Data) and source.scale == "public"
        return cls(source.layout, source.range, public)


_PLAIN = ArrayForm()


def load(path: Path, *, form: ArrayForm = _PLAIN, kind: Targets = "classes") -> Dataset:
    """Read `x_train, y_train, x_test, y_test` and, if there, `client_train`.

    Inputs are images (N, H, W), (N, H, W, C) or (N, C, H, W) with C one of 1, 3 and 4, volumes
    (N, C, D, H, W), rows of features (N, F), or whatever `form.layout` says. uint8 is divided by
    255 whatever its shape; all but rows must be floats in [0, 1] otherwise, or `form.range` says
    what becomes 0 and 1. Several arrays `x_train.NAME` are the columns of a table, in which
    integers other than uint8 stay int64, for a model to look up.

    The largest training label says how many classes there are. `client_train` says whose each
    training sample is, as integers or strings; clients are numbered in sorted order.

    Args:
        path: an .npz file or a folder of .npy files. Of a folder inputs stay in their files, and so
            do those of an .npz that are large and not compressed (`arrays`).
        form: how inputs are stored.
        kind: what targets are, see `targets.read`.

    Raises:
        DataError: names the file, the array and, where one value is wrong, its index.
    """
    try:
        return dataset(path.name, arrays.read(path), form, kind)
    except FaultError as fault:
        # A damaged file's own keys and numpy's messages may break the line.
        raise DataError(f"{path}: {' '.join(str(fault).split())}") from fault


def load_rows(
    path: Path, *, classes: int, form: ArrayForm = _PLAIN, kind: Targets = "classes"
) -> Samples:
    """Read a party's own `x_train` and `y_train`, in the same forms as `load`.

    Args:
        path: what else the file holds is left out.
        classes: C; labels are 0..C-1. Of labels and numbers, how many a sample has.
        form: how inputs are stored.
        kind: what targets are.

    Raises:
        DataError: as `load`.
    """
    try:
        found = arrays.read(path, ("x_train", "y_train"))
        x = _inputs("x_train", found, form)
        limit = Limit(classes, "the classes that the parties agreed on")
        if targets.FORMS[kind].own:
            limit = targets.most_classes(kind, len(x))
        y = targets.read("y_train", found["y_train"].array, len(x), kind, limit)
        _check_fit("y_train", y, kind, x)
        by_value = targets.FORMS[kind].by_value
        if not by_value and (given := targets.outputs(y, kind)) != classes:
            raise FaultError(
                f"y_train has {given} values a sample; expected {classes}, as the parties agreed"
            )
        return Samples(x, y)
    except FaultError as fault:
        raise DataError(f"{path}: {' '.join(str(fault).split())}") from fault


def dataset(name: str, found: Mapping[str, Stored], form: ArrayForm, kind: Targets) -> Dataset:
    """`load` of arrays that are there, by name; it raises `FaultError`."""
    x, x_test = (_inputs(key, found, form) for key in ("x_train", "x_test"))
    one, other = shapes_of(x), shapes_of(x_test)
    if one != other:
        raise FaultError(
            f"a sample of x_test has shape {other}; expected {one} as in x_train (channels first)"
        )
    if form.range is None:
        _check_alike(found)
    own = targets.FORMS[kind].own
    limit = targets.most_classes(kind, len(x) + (len(x_test) if own else 0))
    y = targets.read("y_train", found["y_train"].array, len(x), kind, limit)
    classes = targets.outputs(y, kind)
    if not own:
        limit = Limit(classes, "y_train's classes only; give training samples of it, or drop it")
    y_test = targets.read("y_test", found["y_test"].array, len(x_test), kind, limit)
    if own:
        classes = max(classes, targets.outputs(y_test, kind))
    _check_fit("y_train", y, kind, x)
    _check_fit("y_test", y_test, kind, x_test)
    if not targets.FORMS[kind].by_value and y.shape[1:] != y_test.shape[1:]:
        raise FaultError(
            f"y_test has {y_test.shape[1]} values a sample; expected {y.shape[1]}, as y_train"
        )
    return Dataset(
        name=name,
        train=Samples(x, y),
        test=Samples(x_test, y_test),
        classes=classes,
        class_names=tuple(str(label) for label in range(classes)),
        groups=_groups(found[GROUPS].array, len(x)) if GROUPS in found else None,
        targets=kind,
    )


def _check_fit(key: str, y: Tensor, kind: Targets, x: Rows) -> None:
    shapes = shapes_of(x)
    for shape in shapes.values() if isinstance(shapes, dict) else [shapes]:
        if isinstance(shapes, tuple) or len(shape) == 3:  # a view may be no image beside one
            targets.check_fit(key, y, kind, shape)


def _check_alike(found: Mapping[str, Stored]) -> None:
    """Refuse training and test inputs of which one alone is divided by 255, or stays integers."""
    for key in arrays.names(found, "x_train"):
        twin = key.replace("x_train", "x_test", 1)
        kinds = found[key].array.dtype, found[twin].array.dtype
        if (kinds[0] == np.uint8) != (kinds[1] == np.uint8):
            raise FaultError(
                f"{key} is {kinds[0]}, {twin} {kinds[1]}, and only uint8 is divided by 255; "
                "store both as the same type"
            )
        if key != "x_train" and _integers(found[key].array) != _integers(found[twin].array):
            raise FaultError(
                f"{key} is {kinds[0]}, {twin} {kinds[1]}, and integers of a column stay integers; "
                "store both as the same type"
            )


def _inputs(base: str, found: Mapping[str, Stored], form: ArrayForm) -> Rows:
    """The records of one array, or a table of several."""
    keys = arrays.names(found, base)
    if keys == [base]:
        return records(base, found[base], form)
    if form.range is not None:
        raise FaultError(
            f"has inputs in columns, {', '.join(keys)}, and data.range is for a single array "
            f"{base}: leave it out, and store uint8 or floats in [0, 1]"
        )
    columns = {
        key.removeprefix(f"{base}."): records(key, found[key], form, column=True) for key in keys
    }
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise FaultError(f"has columns of {base} of unlike lengths: {lengths}")
    return Table(columns)


def records(key: str, stored: Stored, form: ArrayForm, *, column: bool = False) -> Rows:
    """float32 (N, *shape), channels first; integers of a column int64; in memory unless mapped."""
    array, axes = stored.array, _axes(key, stored.array.shape, form, column=column)
    integers = column and _integers(array)
    bounded = array.ndim > 2 and form.range is None and not form.unbounded and not integers
    if array.dtype.kind not in ("f" if bounded else "fiub") and array.dtype != np.uint8:
        expected = "uint8 or floats in [0, 1]" if bounded else "numbers"
        remedy = "" if array.dtype.kind not in "iu" else "; or say data.range = [low, high]"
        raise FaultError(f"{key} is {array.dtype}; expected {expected}{remedy}")
    _look_over(key, stored, form, bounded=bounded)
    convert = partial(_converted, axes=axes, range=form.range, integers=integers)
    return Mapped(array, convert, stored.release) if stored.mapped else convert(array)


def _integers(array: Array) -> bool:
    """Whether a column of these is numbers to look up."""
    return array.dtype.kind in "iu" and array.dtype != np.uint8


def _converted(rows: Array, *, axes: _Axes, range: Limits | None, integers: bool) -> Tensor:
    values: Array
    if integers:
        values = rows.astype(np.int64)
    elif range is not None:
        low, high = range
        values = ((rows.astype(np.float64) - low) / (high - low)).astype(np.float32)
    elif rows.dtype == np.uint8:
        values = np.asarray(rows, dtype=np.float32) / np.float32(255)
    else:
        values = np.asarray(rows, dtype=np.float32)
    if axes == "one more":
        values = values[:, None]
    elif axes == "channels last":
        values = np.moveaxis(values, -1, 1)
    return torch.from_numpy(np.ascontiguousarray(values))


def _look_over(key: str, stored: Stored, form: ArrayForm, *, bounded: bool) -> None:
    """Refuse values that are none, or outside of where they should be."""
    if stored.array.dtype == np.uint8 and form.range is None:
        return
    least, most = math.inf, -math.inf
    for start, part in _parts(stored):
        if form.range is not None:
            low, high = form.range
            wrong = ~((part.astype(np.float64) >= low) & (part.astype(np.float64) <= high))
            expected = f"a number within data.range, [{low:g}, {high:g}]"
        else:
            with np.errstate(over="ignore"):
                values = np.asarray(part, dtype=np.float32)
            wrong, expected = ~np.isfinite(values), "a finite float32"
            least, most = min(least, values.min().item()), max(most, values.max().item())
        arrays.check(key, wrong, part, expected, start=start)
        stored.release()
    if bounded and not 0 <= least <= most <= 1:
        raise FaultError(
            f"{key} ranges from {least:g} to {most:g}; expected values within [0, 1]: rescale "
            "them, say what range is publicly known, data.range = [low, high], scale them by a "
            "proxy set, data.scale = 'public', or store uint8"
        )


def _parts(stored: Stored) -> Iterator[tuple[int, Array]]:
    """The array part by part, each with the number of its first row."""
    array = stored.array
    rows = max(1, _AT_ONCE * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def _axes(key: str, shape: tuple[int, ...], form: ArrayForm, *, column: bool) -> _Axes:
    """What is done to an array's axes, so that channels are the second."""
    least = 3 if form.layout == "channels-last" and not column else 1 if column else 2
    if len(shape) < least or 0 in shape or (form.layout is None and len(shape) > 5):
        raise FaultError(
            f"{key} has shape {shape}; expected images (N, H, W), (N, H, W, C) or (N, C, H, W), "
            "volumes (N, C, D, H, W), or rows (N, F), and at least one; of other shapes say "
            "data.layout = 'as-stored' or 'channels-last'"
        )
    if form.layout == "channels-last" and len(shape) > 2:
        return "channels last"
    if form.layout is not None or len(shape) in (1, 2, 5):
        return "as they are"
    if len(shape) == 3:
        return "one more"
    return "channels last" if _channels_last(key, shape) else "as they are"


def _channels_last(key: str, shape: tuple[int, ...]) -> bool:
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first == last:
        which = "axes 1 and 3 could both" if first else "neither axis 1 nor axis 3 can"
        raise FaultError(
            f"{key} has shape {shape}: {which} be the channels (1, 3 or 4); say data.layout = "
            "'as-stored' for channels first, or 'channels-last', or store grey images as (N, H, W)"
        )
    return last


def _groups(array: Array, count: int) -> Tensor:
    """Whose each training sample is, numbered in sorted order: int64 (N_train,)."""
    if array.shape != (count,) or array.dtype.kind not in "iuU":
        raise FaultError(
            f"{GROUPS} is {array.dtype} of shape {array.shape}; expected ({count},), an integer "
            "or a string for each training sample"
        )
    return torch.from_numpy(np.unique(array, return_inverse=True)[1].astype(np.int64))
