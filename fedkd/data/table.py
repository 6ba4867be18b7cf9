"""A user's own data as one CSV file: a header, a column of labels, and columns of numbers."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedkd import rng
from fedkd.data.columns import MISSING, indicator, test_of
from fedkd.data.holdout import stratified
from fedkd.data.types import Dataset, Samples
from fedkd.errors import DataError
from fedkd.names import nearest

_LARGEST = float(np.finfo(np.float32).max)
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def load(
    path: Path,
    *,
    label: str,
    client: str | None = None,
    indicate: bool = False,
    test_share: float,
    seed: int,
) -> Dataset:
    """Read a CSV file and hold a stratified share of its rows out for testing.

    Args:
        path: UTF-8, comma-separated, with a header.
        label: the column of labels, integers or any strings; classes stand in sorted order.
        client: the column that says whose row it is; natural clients stand in sorted order.
        indicate: allow cells without a value: each column `X` is followed by a column `X?`, 1 where
            it is missing, and `X` is 0 there. Otherwise they are refused.
        test_share: the share of each class held out, in (0, 1); every class keeps a training row.
        seed: the experiment's seed, for the draw of the test rows.

    Returns:
        Rows of features, (N, F), from all other columns in the file's order, unscaled.
        Whether or not it misses a cell, a file with the same header has the same features.

    Raises:
        DataError: names the file, the line and the column.
    """
    table = _read(path)
    for column, key in ((label, "label"), (client, "client")):
        if column is not None and column not in table.header:
            hint = nearest(column, table.header) + f"it has {', '.join(table.header)}"
            raise DataError(f"{path}: no column {column!r} (data.{key}): {hint}")
    features = [column for column in table.header if column not in (label, client)]
    if indicate:
        features = [name for column in features for name in (column, indicator(column))]
        if twice := [name for name in features if features.count(name) > 1]:
            raise DataError(
                f"{path}: column {twice[0]!r} has the name of a column that data.missing = "
                "'indicate' makes; rename it"
            )
    x = _numbers(table, features)
    y, class_names = _encode(_column(table, label))
    held = _held_out(table, y, test_share, rng.stream(seed, purpose="csv-test-split"))
    everything = Samples(torch.from_numpy(x), y)
    return Dataset(
        name=path.name,
        train=everything.subset(torch.nonzero(~held)[:, 0]),
        test=everything.subset(torch.nonzero(held)[:, 0]),
        classes=len(class_names),
        class_names=class_names,
        groups=None if client is None else _clients(table, client, ~held),
        features=tuple(features),
    )


def load_rows(
    path: Path, *, label: str, features: Sequence[str], class_names: Sequence[str]
) -> Samples:
    """Read all rows of a party's own CSV file, its columns found by name.

    Args:
        path: as for `load`; columns that were not agreed on are left out.
        label: the column of labels.
        features: the columns that the parties agreed on, in their order; `X?`, where the file has
            only `X`, says where `X` is missing.
        class_names: C names; a row's label is one of them.

    Raises:
        DataError: names the file, the line and the column.
    """
    table = _read(path)
    made = _made(table, features)
    for column in (label, *features):
        if column not in table.header and column not in made:
            hint = nearest(column, table.header) + f"it has {', '.join(table.header)}"
            if indicator(column) in made:
                hint += "; if it is not measured here, add it and leave its cells empty"
            raise DataError(f"{path}: no column {column!r}, which the parties agreed on: {hint}")
    x, codes = _numbers(table, features), {name: c for c, name in enumerate(class_names)}
    cells = [_plain(cell) for cell in _column(table, label)]
    for n, cell in enumerate(cells):
        if cell not in codes:
            raise table.fault(
                n, f", column {label!r}: {cell!r} is no class; expected {', '.join(class_names)}"
            )
    return Samples(torch.from_numpy(x), torch.tensor([codes[cell] for cell in cells]))


@dataclass(frozen=True)
class _Table:
    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    """The line of the file on which each row ends."""

    def fault(self, row: int, text: str) -> DataError:
        return DataError(f"{self.path}: line {self.lines[row]}{text}")


def _read(path: Path) -> _Table:
    """The stripped cells of a file whose header is sound and whose rows are all as long."""
    rows, lines = [], []
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front of the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row:  # blank lines are no rows
                    rows.append([cell.strip() for cell in row])
                    lines.append(reader.line_num)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected a CSV file") from error
    except (csv.Error, UnicodeDecodeError) as error:
        last = lines[-1] if lines else 0
        raise DataError(f"{path}: no CSV in UTF-8 after line {last} ({error})") from error
    if len(rows) < 2:
        raise DataError(f"{path}: {len(rows)} lines; expected a header and at least one row")
    table = _Table(path, rows[0], rows[1:], lines[1:])
    for column in table.header:
        if not column or table.header.count(column) > 1:
            raise DataError(f"{path}: column name {column!r} is empty or stands twice; rename it")
    for n, row in enumerate(table.rows):
        if len(row) != len(table.header):
            raise table.fault(
                n, f" has {len(row)} cells; expected {len(table.header)}, as the header"
            )
    return table


def _numbers(table: _Table, columns: Sequence[str]) -> NDArray[np.float32]:
    """`columns` as float32 (N, F), those that the file lacks made of the cells without a value."""
    if not columns:
        raise DataError(f"{table.path}: no column of features; it has {', '.join(table.header)}")
    x = np.empty((len(table.rows), len(columns)), np.float32)
    made = _made(table, columns)
    for f, column in enumerate(columns):
        cells = [row[table.header.index(made.get(column, column))] for row in table.rows]
        missing = [cell.lower() in MISSING for cell in cells]
        if column in made:
            x[:, f] = missing
            continue
        for n, cell in enumerate(cells):
            value = 0.0 if missing[n] and indicator(column) in made else _number(cell)
            if value is None:
                raise table.fault(n, _no_number(column, cell, missing=missing[n]))
            x[n, f] = value
    return x


def _made(table: _Table, columns: Sequence[str]) -> dict[str, str]:
    """The indicators among `columns` that the file itself lacks, and the column of each."""
    absent = [column for column in columns if column not in table.header]
    tests = {column: test_of(column) for column in absent}
    return {c: test for c, test in tests.items() if c == indicator(test) and test in columns}


def _no_number(column: str, cell: str, *, missing: bool) -> str:
    remedy = "encode it, or drop the row or the column"
    if missing:
        remedy += ", or say data.missing = 'indicate'"
    return f", column {column!r}: {cell!r} is no finite number; fill it in, {remedy}"


def _number(cell: str) -> float | None:
    """The cell's value; None if it is no number that float32 can hold."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if abs(value) <= _LARGEST else None


def _column(table: _Table, name: str) -> list[str]:
    cells = [row[table.header.index(name)] for row in table.rows]
    if "" in cells:
        raise table.fault(
            cells.index(""), f", column {name!r} is empty; fill it in or drop the row"
        )
    return cells


def _encode(cells: list[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Codes from 0, int64 (N,), and names, sorted as numbers if all are integers, else as text."""
    integers = all(_INTEGER.fullmatch(cell) for cell in cells)
    if integers:
        cells = [_plain(cell) for cell in cells]
    names = sorted(set(cells), key=int if integers else str)
    codes = {name: code for code, name in enumerate(names)}
    return torch.tensor([codes[cell] for cell in cells]), tuple(names)


def _plain(cell: str) -> str:
    """An integer without its sign and zeros in front; other text as it is."""
    return str(int(cell)) if _INTEGER.fullmatch(cell) else cell


def _clients(table: _Table, column: str, train: Tensor) -> Tensor:
    """Whose each training row is, int64 (N_train,)."""
    codes, names = _encode(_column(table, column))
    for code, name in enumerate(names):
        if not (codes[train] == code).any():
            raise DataError(
                f"{table.path}: column {column!r}: all rows of {name!r} were held out for testing; "
                "lower data.test_share or drop that client"
            )
    return codes[train]


def _held_out(table: _Table, y: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Which rows are for testing: bool (N,), `share` of each class, rounded."""
    held = stratified(y, share, generator)
    if not held.any():
        raise DataError(
            f"{table.path}: data.test_share = {share} of {len(y)} rows leaves no row of any class "
            "for testing; raise it, or give more rows"
        )
    return held
