"""A data set of torch as arrays: in memory, or read item by item where it is large."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data as torch_data

from fedkd.data.readers.arrays import LEFT, FaultError

Array = NDArray[Any]
Torch = torch_data.Dataset[Any]


class TorchInputs:
    """The inputs of a data set of torch, as far as readers of arrays look at an array.

    Attributes:
        shape: (N, *shape) of the array that all inputs would be.
        dtype: of it.
    """

    def __init__(self, data: Torch, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._data = data
        self.shape, self.dtype = shape, dtype

    @property
    def ndim(self) -> int:
        """How many axes the array would have."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes the array would take."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Array) -> Array:
        places = range(len(self))[rows] if isinstance(rows, slice) else rows.tolist()
        found = [as_array(self._data[place][0]) for place in places]
        return np.stack(found) if found else np.zeros((0, *self.shape[1:]), self.dtype)


def as_array(value: Any) -> Array:
    """A tensor, a picture or a number as an array."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def columns(data: Torch) -> tuple[Array, Array]:
    """All inputs and all targets of a data set; inputs above 100 MB as `TorchInputs`, unread.

    Raises:
        FaultError: it has no length, its items are no pairs, they differ in shape, or they are
            others each time.
    """
    if isinstance(data, torch_data.TensorDataset) and len(data.tensors) == 2:
        x, y = data.tensors
        return as_array(x), as_array(y)
    if not hasattr(data, "__len__"):
        raise FaultError("has no length: expected a data set with items by number, no iterable one")
    count = len(data)
    if not count:
        return np.zeros(0), np.zeros(0)
    pairs = _pairs(data, count)
    first, target = next(pairs)
    large = count * first.nbytes > LEFT
    inputs, targets = [first], [target]
    for own, target in pairs:
        targets.append(target)
        if not large:
            inputs.append(own)
    if not large:
        return np.stack(inputs), np.stack(targets)
    if not np.array_equal(as_array(data[0][0]), first):
        raise FaultError(
            "has another item 0 each time: it draws at random, as augmentation does; give it "
            "without, since records are read again each time they are learned from"
        )
    return cast(Array, TorchInputs(data, (count, *first.shape), first.dtype)), np.stack(targets)


def _pairs(data: Torch, count: int) -> Iterator[tuple[Array, Array]]:
    """Each item's input and target, of which all have the shapes of the first."""
    shapes: list[tuple[int, ...]] = []
    for number in range(count):
        pair = data[number]
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise FaultError(f"item {number} is no pair of an input and a target")
        found = as_array(pair[0]), as_array(pair[1])
        shapes = shapes or [each.shape for each in found]
        for own, shape, what in zip(found, shapes, ("input", "target"), strict=True):
            if own.shape != shape:
                raise FaultError(
                    f"item {number} has an {what} of shape {own.shape}; expected {shape}, as item "
                    "0: make all alike by its transform"
                )
        yield found
