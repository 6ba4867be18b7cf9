"""A CSV file as cells, each fault with its line."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock

from fedkd.data.readers.tables.cells import Cells, Point
from fedkd.errors import DataError

_SEPARATORS = ",;\t|"
_READING = Lock()
"""Of a limit that is the process's."""


def read(path: Path, *, label: str, decimal: Point = ".") -> Cells:
    """Read a CSV file whose header is sound and whose rows are all as long.

    Args:
        path: UTF-8, with commas, semicolons, tabs or bars between cells: what makes `label` a
            column. A first column without a name, pandas' row numbers, is left out.
        label: a column that it should have.
        decimal: see `Cells`.

    Raises:
        DataError: names the file and the line.
    """
    with _cells_of_any_length():
        table = _read(path, label, decimal)
    if table.header[0] == "" and len(table.header) > 1:  # the rows' numbers, as pandas writes them
        table = replace(table, header=table.header[1:], rows=[row[1:] for row in table.rows])
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


def _read(path: Path, label: str, decimal: Point) -> Cells:
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
        raise DataError(
            f"{path}: no CSV in UTF-8 after line {last} ({error}); save it as UTF-8"
        ) from error
    if len(rows) < 2:
        raise DataError(f"{path}: {len(rows)} lines; expected a header and at least one row")
    return Cells(path, rows[0], rows[1:], lines[1:], decimal)


def _check_header(table: Cells, label: str) -> None:
    if len(table.header) == 1 and label not in table.header:
        raise DataError(
            f"{table.path}: one column only, {table.header[0][:80]!r}; expected commas, "
            "semicolons, tabs or bars between cells"
        )
    for column in table.header:
        if not column or table.header.count(column) > 1:
            raise DataError(
                f"{table.path}: column name {column!r} is empty or stands twice; rename it, or "
                "write names of columns above if the file begins with its first row"
            )


def _header(path: Path, separator: str) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        return [cell.strip() for cell in next((row for row in rows if row), [])]


def _score(header: list[str], label: str) -> tuple[bool, int]:
    return label in header, len(header)
