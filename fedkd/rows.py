"""The records of a data set, in memory or not: what all that learns and all that measures reads.

A tensor is the rows of its first axis. Whoever reads rows a batch at a time, by `batches` or by an
index, works on all of them alike; whoever needs all of one tensor says so, by `whole`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from fedkd.devices import CPU
from fedkd.errors import DataError

Batch = Tensor | Mapping[str, Tensor]
"""Some records: a tensor (n, *shape), or one for each named column, each (n, *shape)."""

_BYTES_AT_ONCE = 32_000_000
"""A batch that is only looked at takes no more, in float32; 512 images of 64x64x3 are below."""


class Rows(Protocol):
    """Records that are read by index."""

    def __len__(self) -> int:
        """How many there are, N."""
        ...

    def __getitem__(self, rows: Tensor) -> Batch:
        """Those at `rows`, int64 (n,), in that order; without any, an empty batch."""
        ...


@dataclass(frozen=True, eq=False)
class Table:
    """Records of several named columns; a batch is a mapping from names to tensors.

    Attributes:
        columns: each N records of one tensor; at least one.

    Raises:
        ValueError: there is no column, one is a table itself, or they differ in length.
    """

    columns: Mapping[str, Rows]

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        nested = [name for name, column in self.columns.items() if isinstance(column, Table)]
        if len(set(lengths.values())) != 1 or nested:
            raise ValueError(f"Expected columns of one length, no tables: {lengths=}, {nested=}.")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, rows: Tensor) -> Mapping[str, Tensor]:
        return {name: one(column[rows]) for name, column in self.columns.items()}


def _nothing() -> None:
    """Nothing to let go of."""


@dataclass(frozen=True, eq=False)
class Mapped:
    """Rows of an array that stays in its file: only the rows that are asked for are read.

    Attributes:
        array: (N, ...), as stored.
        convert: rows of it (n, ...) -> a tensor (n, *shape) of their own memory.
        release: called after each read; gives memory back that mirrors the file.
    """

    array: NDArray[Any]
    convert: Callable[[NDArray[Any]], Tensor]
    release: Callable[[], None] = _nothing

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: Tensor) -> Tensor:
        batch = self.convert(self.array[rows.numpy()])
        self.release()
        return batch


@dataclass(frozen=True, eq=False)
class View:
    """Some rows of others, by index: a client's, or those held out.

    Attributes:
        source: the others.
        places: int64 (N,), where in `source` each row stands.
    """

    source: Rows
    places: Tensor

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: Tensor) -> Batch:
        return self.source[self.places[rows]]


def take(rows: Rows, places: Tensor) -> Rows:
    """The rows at `places`, int64 (M,): a copy in memory of a tensor, a view of all else."""
    match rows:
        case Tensor():
            return rows[places]
        case Table(columns):
            return Table({name: take(column, places) for name, column in columns.items()})
        case View(source, before):
            return View(source, before[places])
    return View(rows, places)


def first(rows: Rows, count: int) -> Rows:
    """The first `count` rows, or all if there are fewer."""
    return take(rows, torch.arange(min(count, len(rows))))


def concat(parts: Sequence[Rows]) -> Rows:
    """Rows one after another; views of one file stay one, other parts are read into memory.

    Args:
        parts: at least one, all tables or none.

    Raises:
        DataError: they have different columns.
    """
    if isinstance(parts[0], Table):
        names = list(parts[0].columns)
        tables = [part for part in parts if isinstance(part, Table) and names == [*part.columns]]
        if len(tables) < len(parts):
            raise DataError(f"records of unlike columns: expected {', '.join(names)} in all")
        return Table({name: concat([each.columns[name] for each in tables]) for name in names})
    views = [part for part in parts if isinstance(part, View)]
    if len(views) == len(parts) and len({id(view.source) for view in views}) == 1:
        return View(views[0].source, torch.cat([view.places for view in views]))
    return torch.cat([whole(part) for part in parts])


def converted(rows: Rows, change: Callable[[Tensor], Tensor]) -> Rows:
    """Rows after `change`, (n, *shape) -> (n, *new shape), which takes each row for itself.

    Of a file it happens as rows are read.

    Raises:
        DataError: records are more than one tensor.
    """
    match rows:
        case View(source, places) if isinstance(source, Mapped):
            return View(converted(source, change), places)
        case Mapped(convert=convert):
            return replace(rows, convert=partial(_after, convert, change))
    return change(whole(rows))


def columns_of(rows: Rows, columns: Sequence[int]) -> Rows:
    """Some columns, by place, of rows of features (N, F).

    Raises:
        DataError: records are more than one tensor.
    """
    return converted(rows, partial(_columns, columns=list(columns)))


def _columns(x: Tensor, columns: list[int]) -> Tensor:
    return x[:, columns]


def _after(
    convert: Callable[[NDArray[Any]], Tensor],
    change: Callable[[Tensor], Tensor],
    rows: NDArray[Any],
) -> Tensor:
    return change(convert(rows))


def batches(rows: Rows, size: int | None = None, *, exact: bool = False) -> Iterator[Batch]:
    """All rows in order, a batch at a time; of no rows, one empty batch.

    Args:
        rows: N of them.
        size: how many at once; None: as many as fit into 32 MB.
        exact: whether `size` holds for large records too, of which fewer are read otherwise.
    """
    if size is None or not exact:
        fitting = max(1, _BYTES_AT_ONCE // max(1, 4 * _numbers(rows)))
        size = fitting if size is None else min(size, fitting)
    if isinstance(rows, Tensor):
        yield from torch.split(rows, size)
        return
    for start in range(0, max(len(rows), 1), size):
        yield rows[torch.arange(start, min(start + size, len(rows)))]


def length(batch: Batch) -> int:
    """How many records a batch has."""
    return len(batch) if isinstance(batch, Tensor) else len(next(iter(batch.values())))


def shapes_of(rows: Rows) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
    """The shape of one record: of its tensor, or of each of its columns by name."""
    batch = rows[torch.arange(0)]
    if isinstance(batch, Tensor):
        return tuple(batch.shape[1:])
    return {name: tuple(column.shape[1:]) for name, column in batch.items()}


def shape_of(rows: Rows) -> tuple[int, ...]:
    """The shape of one record.

    Raises:
        DataError: records are more than one tensor.
    """
    return tuple(one(rows[torch.arange(0)]).shape[1:])


def moved(batch: Batch, device: torch.device) -> Batch:
    """A batch on a device; itself, not a copy, where it is there."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    return {name: column.to(device) for name, column in batch.items()}


def device_of(rows: Rows) -> torch.device:
    """Where rows are; all but tensors are on the CPU."""
    return rows.device if isinstance(rows, Tensor) else CPU


def one(batch: Batch) -> Tensor:
    """A batch of one tensor, (n, *shape).

    Raises:
        DataError: it is one of named columns.
    """
    if isinstance(batch, Tensor):
        return batch
    raise DataError(
        f"records have the columns {', '.join(batch)}, and what was asked for takes records of one "
        "tensor: give one array x_train, let it see one view, or train by what takes columns"
    )


def whole(rows: Rows) -> Tensor:
    """All rows as one tensor (N, *shape) in memory, for what needs them at once.

    Raises:
        DataError: records are more than one tensor.
    """
    if isinstance(rows, Tensor):
        return rows
    none = one(rows[torch.arange(0)])
    found, start = none.new_empty(len(rows), *none.shape[1:]), 0  # no second copy of them all
    for batch in batches(rows):
        found[start : start + length(batch)] = one(batch)
        start += length(batch)
    return found


def _numbers(rows: Rows) -> int:
    """How many numbers one record holds."""
    shapes = shapes_of(rows)
    every = [shapes] if isinstance(shapes, tuple) else list(shapes.values())
    return sum(torch.Size(shape).numel() for shape in every)
