"""The cells of a table, and what becomes of them: numbers, codes, and marks of missing values.

A feature is a column of the file or is made of one: `sex=m` is 1 where `sex` is `m`, and `sex?` is
1 where it is missing. So the names of features say all that a party needs to make its own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedkd.data.readers.tables.columns import (
    MISSING,
    OTHERS,
    as_code,
    as_key,
    code,
    indicator,
    made_of,
)
from fedkd.errors import DataError
from fedkd.names import choices

Point = Literal[".", ","]
"""What stands in front of a number's decimals."""
_LARGEST = float(np.finfo(np.float32).max)
_COMMA = re.compile(r"[+-]?[0-9.]*,[0-9]+([eE][+-]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{1,4}([-/.])[0-9]{1,2}\1[0-9]{1,4}([T ].*)?")
_TRUTH = {"false": 0.0, "true": 1.0}


@dataclass(frozen=True)
class Cells:
    """The stripped cells of a table.

    Attributes:
        path: the file.
        header: the columns' names, each once.
        rows: N rows, as long as the header.
        lines: the line of the file on which each row ends, or the record's number.
        decimal: what stands in front of a number's decimals.
        files: of several files, one after the other, the first row of each and its path.
    """

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    decimal: Point = "."
    files: tuple[tuple[int, Path], ...] = ()

    def fault(self, row: int, text: str) -> DataError:
        """The error to raise about a row."""
        path = next((each for first, each in reversed(self.files) if first <= row), self.path)
        return DataError(f"{path}: line {self.lines[row]}{text}")

    def require(self, column: str, key: str) -> None:
        """Refuse a column that the configuration names and the file has not."""
        if column not in self.header:
            raise DataError(f"{self.path}: no column {column!r} ({key}): {self.hint(column)}")

    def hint(self, column: str) -> str:
        """What the file has in place of a column."""
        return choices(column, self.header, lead="it has ")

    def column(self, name: str) -> list[str]:
        """The cells of a column that may have none without a value."""
        cells = self.cells(name)
        if "" in cells:
            raise self.fault(
                cells.index(""), f", column {name!r} is empty; fill it in or drop the row"
            )
        return cells

    def cells(self, column: str) -> list[str]:
        """The cells of a column as they stand."""
        place = self.header.index(column)
        return [row[place] for row in self.rows]

    def numbers(self, columns: Sequence[str]) -> NDArray[np.float32]:
        """Features as float32 (N, F): columns of numbers, and what is made of others.

        Raises:
            DataError: names a cell that is no number or has no code, and all columns of such.
        """
        if not columns:
            raise DataError(f"{self.path}: no column of features; it has {', '.join(self.header)}")
        x = np.zeros((len(self.rows), len(columns)), np.float32)
        places, made = {column: f for f, column in enumerate(columns)}, self.made(columns)
        faults: dict[str, int] = {}
        for column, place in places.items():
            if column not in made:
                may_miss = indicator(column) in made
                row = self._fill(x[:, place], self.cells(column), may_miss=may_miss)
                if row is not None:
                    faults[column] = row
        if faults:
            raise self._no_numbers(faults)
        for test in dict.fromkeys(made.values()):
            self._encode(test, x, places)
        return x

    def made(self, columns: Sequence[str]) -> dict[str, str]:
        """The features among `columns` that the file itself lacks, and the column of each."""
        known = {*self.header, *columns}
        absent = {c: made_of(c, known) for c in columns if c not in self.header}
        return {column: test for column, test in absent.items() if test is not None}

    def _fill(self, x: NDArray[np.float32], cells: Sequence[str], *, may_miss: bool) -> int | None:
        """Fill in a column of numbers; the first row that has none, if there is one."""
        for n, cell in enumerate(cells):
            value = 0.0 if may_miss and is_missing(cell) else self.number(cell)
            if value is None:
                return n
            x[n] = value
        return None

    def _encode(self, test: str, x: NDArray[np.float32], places: Mapping[str, int]) -> None:
        """Fill in what is made of a column: a 1 where its code is, or where it is missing."""
        start, mark = code(test, ""), places.get(indicator(test))
        codes = {f.removeprefix(start): n for f, n in places.items() if f.startswith(start)}
        for n, cell in enumerate(self.cells(test)):
            place = codes.get(as_code(cell))
            if place is None and is_missing(cell):
                place = mark
            elif place is None and codes:
                place = codes.get(OTHERS)
            elif place is None:
                continue  # a number, and its indicator stays 0
            if place is None:
                raise self.fault(n, _no_code(test, cell, [*codes]))
            x[n, place] = 1

    def number(self, cell: str) -> float | None:
        """A cell's value; None if it is no number that float32 can hold."""
        if self.decimal == ",":
            if "." in cell:  # thousands, or a file that writes both
                return None
            cell = cell.replace(",", ".")
        return number(cell)

    def _no_numbers(self, faults: Mapping[str, int]) -> DataError:
        """About the first cell that is no number, and the columns that have such."""
        column, row = next(iter(faults.items()))
        cell = self.cells(column)[row]
        out = f"data.ignore = [{', '.join(map(repr, faults))}]"
        remedy = f"fill it in, encode it, drop the row, or leave the column out, {out}"
        if is_missing(cell):
            remedy += ", or say data.missing = 'indicate'"
        elif self.decimal == "." and _COMMA.fullmatch(cell):
            remedy = "write a point, or if all decimals have a comma say data.decimal = ','"
        elif is_date(cell):
            remedy = f"of a date make a number, such as days, or leave the column out, {out}"
        elif self.decimal == "," and "." in cell:
            remedy = "write no thousands separators, or if decimals have a point leave out "
            remedy += "data.decimal"
        else:
            remedy = (
                "fill it in, encode it, such as by the codes that it may have, data.codes = "
                f"{{ {as_key(column)} = [...] }}, or leave the column out, {out}"
            )
        others = [name for name in faults if name != column]
        also = f" (nor are all cells of {', '.join(map(repr, others))})" if others else ""
        return self.fault(row, f", column {column!r}: {cell!r} is no finite number{also}; {remedy}")


def joined(path: Path, tables: Sequence[Cells], columns: Sequence[str] = ()) -> Cells:
    """Tables of the same columns as one, row after row.

    Args:
        path: what they are called together.
        tables: at least one; columns may be in any order.
        columns: those that matter; all, and then alike, unless given.

    Raises:
        DataError: names the file whose columns are others.
    """
    header, firsts = (
        [*(columns or tables[0].header)],
        list(accumulate((len(t.rows) for t in tables), initial=0)),
    )
    rows = []
    for table in tables:
        if not columns and set(table.header) != set(header):
            fewer = [column for column in header if column not in table.header]
            more = [column for column in table.header if column not in header]
            what = f"lacks {', '.join(fewer)}" if fewer else f"has {', '.join(more)} besides"
            raise DataError(
                f"{table.path}: {what}; expected the columns of {tables[0].path}: "
                f"{', '.join(header)}; what one never measured it has with empty cells"
            )
        places = [table.header.index(column) for column in header]
        rows += [[row[place] for place in places] for row in table.rows]
    return Cells(
        path,
        header,
        rows,
        [line for table in tables for line in table.lines],
        tables[0].decimal,
        tuple(zip(firsts, (table.path for table in tables), strict=False)),
    )


def is_missing(cell: str) -> bool:
    """Whether a cell has no value."""
    return cell.lower() in MISSING


def number(cell: str) -> float | None:
    """A cell's value; `true` and `false` are 1 and 0; None if it is no number of float32.

    Python's own notations, `1_000` and digits of other scripts, are none: no other reader of the
    file would take them for the same number.
    """
    if "_" in cell or not cell.isascii():
        return None
    try:
        value = float(cell)
    except ValueError:
        return _TRUTH.get(cell.lower())
    return value if abs(value) <= _LARGEST else None


def _no_code(test: str, cell: str, codes: Sequence[str]) -> str:
    if not codes or is_missing(cell):
        return (
            f", column {test!r}: {cell!r} is no value; fill it in, drop the row, or say "
            "data.missing = 'indicate'"
        )
    return (
        f", column {test!r}: {cell!r} is no code of it: {choices(cell, codes, lead='expected ')}; "
        "or add '*', the code of all others"
    )


def is_date(cell: str) -> bool:
    """Whether a cell is a day, with or without a time: ISO 8601, or numbers as in 24.12.2024."""
    if _DATE.fullmatch(cell):
        return True
    try:
        datetime.fromisoformat(cell)
    except ValueError:
        return False
    return not cell.isdigit()
