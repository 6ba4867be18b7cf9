"""A table of a report: columns, rows of cells, and what it is called."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # which loads scipy, and no run but an audit has use for it
    from fedkd.auditing.verdicts import Outcome


@dataclass(frozen=True)
class GridColumn:
    """A column; that of numbers is right-aligned, one of words is wrapped."""

    name: str
    kind: Literal["number", "text", "words"] = "number"
    main: bool = False
    """Whether it is what the table is about."""


@dataclass(frozen=True)
class Noted:
    """A cell's text, and what stands smaller beside it."""

    text: str
    note: str


@dataclass(frozen=True)
class Link:
    """A cell that leads to another file; one without an address does not."""

    text: str
    address: str | None


@dataclass(frozen=True)
class Mark:
    """A cell that holds a verdict."""

    outcome: "Outcome"


Cell = str | Noted | Link | Mark


@dataclass(frozen=True)
class Grid:
    """A table; the first cell of a row is the row's heading."""

    kind: ClassVar = "grid"
    label: str
    """What it shows, unlike that of any other table of the report."""
    columns: tuple[GridColumn, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    tall: bool = False
    """Whether it may have so many rows that it should scroll by itself."""


def columns(first: str, *others: str) -> tuple[GridColumn, ...]:
    """A column of text and columns of numbers, by name."""
    return (GridColumn(first, "text"), *map(GridColumn, others))


def numbers(
    label: str,
    corner: str,
    values: NDArray[np.float64],
    *,
    names: Sequence[str],
    heads: Sequence[str],
    form: Callable[[float], str],
) -> Grid:
    """A matrix (rows, columns) as a table; NaN is what is not defined."""
    rows = (
        (name, *("–" if np.isnan(value) else form(value) for value in row))
        for name, row in zip(names, values, strict=True)
    )
    return Grid(label, columns(corner, *heads), tuple(rows))
