"""A CSV file as cells, columns and numbers, each fault with its line and column."""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedkd.data.readers.tables.columns import MISSING, indicator, test_of
from fedkd.errors import DataError
from fedkd.names import choices

Decimal = Literal[".", ","]
_LARGEST = float(np.finfo(np.float32).max)
_SEPARATORS = ",;\t"
_READING = Lock()
"""Of a limit that is the process's."""
_COMMA = re.compile(r"[+-]?[0-9.]*,[0-9]+([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Cells:
    """The stripped cells of a CSV file.

    Attributes:
        path: the file.
        header: the columns' names, each once.
        rows: N rows, as long as the header.
        lines: the line of the file on which each row ends.
        decimal: what stands in front of a number's decimals.
    """

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    decimal: Decimal = "."

    def fault(self, row: int, text: str) -> DataError:
        """The error to raise about a row."""
        return DataError(f"{self.path}: line {self.lines[row]}{text}")

    def require(self, column: str, key: str) -> None:
        """Refuse a column that the configuration names and the file has not."""
        if column not in self.header:
            raise DataError(f"{self.path}: no column {column!r} ({key}): {self.hint(column)}")

    def hint(self, column: str) -> str:
        """What the file has in place of a column."""
        return choices(column, self.header, lead="it has ")

    def column(self, name: str) -> list[str]:
        """The cells of a column that may have none without a value."""
        cells = self._cells(name)
        if "" in cells:
            raise self.fault(
                cells.index(""), f", column {name!r} is empty; fill it in or drop the row"
            )
        return cells

    def numbers(self, columns: Sequence[str]) -> NDArray[np.float32]:
        """Columns as float32 (N, F); `indicators` are 1 where a cell of theirs has no value."""
        if not columns:
            raise DataError(f"{self.path}: no column of features; it has {', '.join(self.header)}")
        x = np.empty((len(self.rows), len(columns)), np.float32)
        indicators = self.indicators(columns)
        for f, column in enumerate(columns):
            cells = self._cells(indicators.get(column, column))
            missing = [cell.lower() in MISSING for cell in cells]
            if column in indicators:
                x[:, f] = missing
                continue
            for n, cell in enumerate(cells):
                absent = missing[n] and indicator(column) in indicators
                value = 0.0 if absent else self.number(cell)
                if value is None:
                    raise self.fault(n, self._no_number(column, cell, missing=missing[n]))
                x[n, f] = value
        return x

    def indicators(self, columns: Sequence[str]) -> dict[str, str]:
        """The indicators among `columns` that the file itself lacks, and the column of each."""
        absent = [column for column in columns if column not in self.header]
        tests = {column: test_of(column) for column in absent}
        return {c: test for c, test in tests.items() if c == indicator(test) and test in columns}

    def _cells(self, column: str) -> list[str]:
        place = self.header.index(column)
        return [row[place] for row in self.rows]

    def number(self, cell: str) -> float | None:
        """A cell's value; None if it is no number that float32 can hold."""
        if self.decimal == ",":
            if "." in cell:  # thousands, or a file that writes both
                return None
            cell = cell.replace(",", ".")
        return number(cell)

    def _no_number(self, column: str, cell: str, *, missing: bool) -> str:
        remedy = f"encode it, drop the row, or leave the column out, data.ignore = [{column!r}]"
        if missing:
            remedy += ", or say data.missing = 'indicate'"
        if self.decimal == "." and _COMMA.fullmatch(cell):
            remedy = "write a point, or if all decimals have a comma say data.decimal = ','"
            return f", column {column!r}: {cell!r} is no finite number; {remedy}"
        if self.decimal == "," and "." in cell:
            remedy = "write no thousands separators, or if decimals have a point leave out "
            return f", column {column!r}: {cell!r} is no finite number; {remedy}data.decimal"
        return f", column {column!r}: {cell!r} is no finite number; fill it in, {remedy}"


def number(cell: str) -> float | None:
    """A cell's value; None if it is no number that float32 can hold.

    Python's own notations, `1_000` and digits of other scripts, are none: no other reader of the
    file would take them for the same number.
    """
    if "_" in cell or not cell.isascii():
        return None
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if abs(value) <= _LARGEST else None


def read(path: Path, *, label: str, decimal: Decimal = ".") -> Cells:
    """Read a CSV file whose header is sound and whose rows are all as long.

    Args:
        path: UTF-8, with commas, semicolons or tabs between cells: what makes `label` a column.
        label: a column that it should have.
        decimal: see `Cells`.

    Raises:
        DataError: names the file and the line.
    """
    with _cells_of_any_length():
        table = _read(path, label, decimal)
    _check_header(table, label)
    for n, row in enumerate(table.rows):
        if len(row) != len(table.header):
            raise table.fault(
                n, f" has {len(row)} cells; expected {len(table.header)}, as the header"
            )
    return table


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """A text may be longer than 131,072 characters, the library's limit for the whole process."""
    with _READING:
        before = csv.field_size_limit(2**31 - 1)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _read(path: Path, label: str, decimal: Decimal) -> Cells:
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        separator = max(_SEPARATORS, key=lambda each: _score(_header(path, each), label))
        # utf-8-sig: spreadsheets put a byte order mark in front of the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, delimiter=separator)
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
    return Cells(path, rows[0], rows[1:], lines[1:], decimal)


def _check_header(table: Cells, label: str) -> None:
    if len(table.header) == 1 and label not in table.header:
        raise DataError(
            f"{table.path}: one column only, {table.header[0][:80]!r}; expected commas, semicolons "
            "or tabs between cells"
        )
    for column in table.header:
        if not column or table.header.count(column) > 1:
            raise DataError(
                f"{table.path}: column name {column!r} is empty or stands twice; rename it"
            )


def _header(path: Path, separator: str) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        return [cell.strip() for cell in next((row for row in rows if row), [])]


def _score(header: list[str], label: str) -> tuple[bool, int]:
    return label in header, len(header)
