"""Data that a program gives as Python objects, in place of a file.

An experiment names it by what it was, such as `<TensorDataset>`, in angle brackets as Python names
a source that is no file. The name leads to the object for as long as the call lasts that was given
it, and in no other process. A copy is not kept: it is the caller's private data.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data as torch_data

from fedkd import config
from fedkd.data.holdout import held_out
from fedkd.data.readers import arrays, npz
from fedkd.data.readers.arrays import FaultError, Stored
from fedkd.data.readers.items import TorchInputs, as_array, columns
from fedkd.data.types import Dataset
from fedkd.errors import ConfigError, DataError
from fedkd.tasks import Targets

NAMES = "class_names"
"""Beside the arrays: what classes, labels or numbers are called."""
_TRAIN, _TEST = ("x_train", "y_train"), ("x_test", "y_test")
_OBJECTS: ContextVar[Mapping[str, object] | None] = ContextVar("_OBJECTS", default=None)


def is_given(name: str) -> bool:
    """Whether a `data.name` is that of a Python object."""
    return name.startswith("<") and name.endswith(">")


@contextmanager
def held(value: object) -> Iterator[str]:
    """Let a name lead to an object for as long as the context lasts.

    Args:
        value: what `dataset` takes.

    Returns:
        The name, for `data.name`.
    """
    kinds = [type(each).__name__ for each in (value if isinstance(value, tuple) else (value,))]
    name = f"<{', '.join(kinds)}>"
    token = _OBJECTS.set({name: value})
    try:
        yield name
    finally:
        _OBJECTS.reset(token)


def load(name: str, source: config.Source, *, seed: int, targets: Targets) -> Dataset:
    """The data set that a name leads to here.

    Raises:
        ConfigError: to none.
        DataError: as `dataset`.
    """
    objects = _OBJECTS.get() or {}
    if name not in objects:
        raise ConfigError(
            f"data.name is {name!r}, a Python object that this call was not given: pass it again, "
            "fedkd.simulate(..., data=...), or name a file or a folder"
        )
    return dataset(objects[name], name, source, seed=seed, targets=targets)


def dataset(
    value: Any, name: str, source: config.Source, *, seed: int, targets: Targets
) -> Dataset:
    """A data set out of Python objects.

    Args:
        value: arrays or tensors by name, as an `.npz` file has them: `x_train`, `y_train`, and
            unless some are to be held out `x_test` and `y_test`; perhaps `client_train`, and the
            names of classes as `class_names`. Or a data set of torch with a length, whose items
            are pairs of an input and a target; or a pair of them, for training and for testing.
            Of a large one inputs stay in it and are read again each time they are needed.
        name: of the data.
        source: the section `[data]`; its `test_share` is held out where there is no test set, by a
            hash of each record.
        seed: keys the hashes.
        targets: what the task asks for.

    Raises:
        DataError: it is nothing of this, or what it holds does not fit.
    """
    try:
        found, names = _found(value)
        apart = _TEST[0] in found or any(key.startswith(f"{_TEST[0]}.") for key in found)
        if not apart:  # the same twice, of which each side then keeps its own
            found |= {key.replace("_train", "_test", 1): each for key, each in found.items()}
            found.pop("client_test", None)
        wanted = arrays.wanted(list(found), arrays.REQUIRED)
        stored = {key: Stored(found[key], isinstance(found[key], TorchInputs)) for key in wanted}
        form = npz.ArrayForm.of(source)
        if form.layout is None and _gives_images(value):
            form = replace(form, layout="as-stored")
        read = npz.dataset(name, stored, form, targets)
        read = replace(read, class_names=_names(names, read))
    except FaultError as fault:
        raise DataError(f"{name}: {' '.join(str(fault).split())}") from fault
    return read if apart else _divided(read, source.test_share, seed)


def _found(value: Any) -> tuple[dict[str, NDArray[Any]], Sequence[str] | None]:
    """Arrays by name, and the names of classes where the object has some."""
    if isinstance(value, Mapping):
        found = {str(key): each for key, each in value.items() if key != NAMES}
        return {key: as_array(each) for key, each in found.items()}, value.get(NAMES)
    parts = value if isinstance(value, tuple) and len(value) == 2 else (value,)
    if not all(isinstance(part, torch_data.Dataset) for part in parts):
        raise FaultError(
            "is no data: expected arrays by name, {'x_train': ..., 'y_train': ...}, a data set of "
            "torch, or a pair of these for training and for testing"
        )
    found = {}
    for part, keys in zip(parts, (_TRAIN, _TEST), strict=False):
        found |= dict(zip(keys, columns(part), strict=True))
    return found, getattr(parts[0], "classes", None)  # as torchvision's data sets have them


def _gives_images(value: Any) -> bool:
    """Whether a data set of torch gives tensors (C, H, W), channels first as torch has them."""
    part = value[0] if isinstance(value, tuple) else value
    if not isinstance(part, torch_data.Dataset) or not len(part):  # type: ignore[arg-type]
        return False
    item = part[0][0]
    return isinstance(item, Tensor) and item.dim() == 3


def _names(given: Any, read: Dataset) -> tuple[str, ...]:
    """Of the classes that the data has."""
    if given is None:
        return read.class_names
    names = tuple(map(str, given))
    if len(names) < read.classes or len(set(names)) < len(names):
        raise FaultError(
            f"names the classes {', '.join(names)}, and its targets have {read.classes}: expected "
            "a name for each, all different"
        )
    return names[: read.classes]


def _divided(read: Dataset, share: float, seed: int) -> Dataset:
    """The data set with some of its records for testing, in place of all."""
    names = [repr(target) for target in read.train.y.tolist()]
    held = held_out(read.train.x, names, share, seed=seed, purpose="given-test-split")
    if held.all() or not held.any():
        raise DataError(
            f"{read.name}: data.test_share = {share:g} of {len(held)} records leaves none on one "
            "side: change it, give more, or give x_test and y_test"
        )
    kept, out = (torch.nonzero(side)[:, 0] for side in (~held, held))
    groups = None if read.groups is None else read.groups[kept]
    return replace(read, train=read.train.subset(kept), test=read.train.subset(out), groups=groups)
