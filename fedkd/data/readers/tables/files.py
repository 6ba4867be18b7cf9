"""A table, as CSV, JSON, JSON lines, Parquet or Arrow: the same cells, whatever the file."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from fedkd.data.readers.tables import arrow, csv_file
from fedkd.data.readers.tables.cells import Cells, Point
from fedkd.errors import DataError

ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt")
TABLES = (".csv", ".tsv", ".parquet")
"""Whose columns do not depend on their rows."""
_OF_A_CELL = (str, int, float, Decimal, date, time)
_HALF = re.compile("[\ud800-\udfff]")
"""Of a pair in UTF-16, alone: JSON can write it, and no tokeniser can read it."""
Wanted = Callable[[str], bool]
"""Whether a column is wanted, by its name."""


def is_table(name: str) -> bool:
    """Whether a name is that of a table's file."""
    return Path(name).suffix.lower() in TABLES


def read(path: Path, columns: Sequence[str], *, also: Sequence[str] = ()) -> Cells:
    """Read the columns of a table of texts; a fault names the line, or the record counted from 1.

    Args:
        path: `.csv` or `.tsv`, with a header; `.jsonl`, an object a line; `.json`, a list of
            objects; `.parquet`; or `.txt`, a text a line, which is one column. In all UTF-8.
        columns: that it must have. Of JSON and Parquet no others are read.
        also: that are read where it has them.

    Raises:
        DataError: it cannot be read, a column is missing, or a value is no text or number.
    """
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        table = csv_file.read(path, label=columns[0])
    elif ending == ".txt":
        lines = enumerate(_lines(path), start=1)
        texts = [(number, {columns[0]: line}) for number, line in lines if line.strip()]
        table = _cells(path, texts, {*columns}.__contains__)
    elif ending in ENDINGS or path.is_dir():
        wanted = {*columns, *also}.__contains__
        table = _cells(path, list(_objects(path, wanted)), wanted)
    else:
        raise DataError(f"{path}: expected a table of texts, {', '.join(ENDINGS)}")
    for column in columns:
        table.require(column, "data.text.column, data.label or data.client")
    return table


def read_all(
    path: Path, *, label: str, wanted: Wanted = lambda _: True, decimal: Point = "."
) -> Cells:
    """Read a table of numbers and codes.

    Args:
        path: one of `TABLES`, as `read` has them, or the folder of a stored data set's split.
        label: a column that it should have.
        wanted: columns whose values matter; those of others may be anything.
        decimal: of `.csv` and `.tsv`; all else has numbers of its own.

    Raises:
        DataError: it cannot be read, or a value in a column that is wanted is none of a cell.
    """
    if path.suffix.lower() in (".csv", ".tsv"):
        return csv_file.read(path, label=label, decimal=decimal)
    return _cells(path, list(_objects(path, wanted)), wanted)


def _objects(path: Path, wanted: Wanted) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each record, with where it stands; of columns that are not wanted there may be no value."""
    ending = path.suffix.lower()
    if ending not in (".json", ".jsonl"):
        yield from enumerate(arrow.records(path, wanted), start=1)
        return
    if ending == ".json":
        found = _parsed(path, _content(path), "")
        if not isinstance(found, list):
            raise DataError(f"{path}: expected a list of objects")
        yield from enumerate(found, start=1)
        return
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            yield number, _parsed(path, line, f"line {number}, ")


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}; expected texts in UTF-8") from error


def _lines(path: Path) -> list[str]:
    """Lines as an editor counts them; a text may hold what else Unicode calls the end of one."""
    return _content(path).split("\n")


def _parsed(path: Path, content: str, where: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise DataError(f"{path}: {where}{error}; expected JSON") from error


def _cells(path: Path, objects: Sequence[tuple[int, Mapping[str, Any]]], wanted: Wanted) -> Cells:
    if not objects:
        raise DataError(f"{path}: no record; expected at least one")
    seen: dict[str, None] = {}
    for place, each in objects:
        if not isinstance(each, Mapping):
            raise DataError(f"{path}: line {place}: expected an object, such as {{'text': ...}}")
        seen |= dict.fromkeys(each)
    table = Cells(path, list(seen), [], [place for place, _ in objects])
    for row, (_, each) in enumerate(objects):
        table.rows.append(
            [_cell(table, row, n, each.get(n)) if wanted(n) else "" for n in table.header]
        )
    return table


def _cell(table: Cells, row: int, column: str, value: Any) -> str:
    """A value as a cell of CSV would have it; of lists their parts with blanks between."""
    if isinstance(value, list) and all(isinstance(each, str | int) for each in value):
        return " ".join(map(str, value))
    if isinstance(value, str) and not value.isascii() and _HALF.search(value):
        raise table.fault(
            row, f", column {column!r}: {value!r:.60} has half a character; expected Unicode text"
        )
    if value is None:
        return ""
    if isinstance(value, _OF_A_CELL):
        return str(value).strip()
    raise table.fault(
        row,
        f", column {column!r}: {value!r:.60} is no text or number; expected one, or leave the "
        f"column out, data.ignore = [{column!r}]",
    )
