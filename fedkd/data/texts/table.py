"""A table of texts, as CSV, JSON, JSON lines or Parquet: the same cells, whatever the file."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedkd import optional
from fedkd.data.readers.tables import csv_file
from fedkd.data.readers.tables.csv_file import Cells
from fedkd.errors import DataError

ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt")
_HALF = re.compile("[\ud800-\udfff]")
"""Of a pair in UTF-16, alone: JSON can write it, and no tokeniser can read it."""


def read(path: Path, columns: Sequence[str], *, also: Sequence[str] = ()) -> Cells:
    """Read the columns of a table; a fault names the line, or the record counted from 1.

    Args:
        path: `.csv`, with a header; `.jsonl`, an object a line; `.json`, a list of objects;
            `.parquet`; or `.txt`, a text a line, which is one column. In all UTF-8.
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
        table = _cells(path, texts, columns)
    elif ending in ENDINGS:
        asked = (*columns, *also)
        table = _cells(path, list(_objects(path, ending, asked)), asked)
    else:
        raise DataError(f"{path}: expected a table of texts, {', '.join(ENDINGS)}")
    for column in columns:
        table.require(column, "data.text.column, data.label or data.client")
    return table


def _objects(
    path: Path, ending: str, columns: Sequence[str]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each record, with where it stands."""
    if ending == ".parquet":
        library = optional.load("pyarrow.parquet", extra="parquet")
        try:
            names = [name for name in library.read_schema(path).names if name in columns]
            rows = library.read_table(path, columns=names).to_pylist()
        except Exception as error:  # whatever the library says of a file that is none
            raise DataError(f"{path}: {error}; expected a Parquet file") from error
        yield from enumerate(rows, start=1)
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


def _cells(
    path: Path, objects: Sequence[tuple[int, Mapping[str, Any]]], columns: Sequence[str]
) -> Cells:
    if not objects:
        raise DataError(f"{path}: no record; expected at least one")
    seen: dict[str, None] = {}
    for place, each in objects:
        if not isinstance(each, Mapping):
            raise DataError(f"{path}: line {place}: expected an object, such as {{'text': ...}}")
        seen |= dict.fromkeys(each)
    header = list(seen)
    table = Cells(path, header, [], [place for place, _ in objects])
    for row, (_, each) in enumerate(objects):
        cells = [_cell(table, row, name, each.get(name), asked=name in columns) for name in header]
        table.rows.append(cells)
    return table


def _cell(table: Cells, row: int, column: str, value: Any, *, asked: bool) -> str:
    """A value as a cell of CSV would have it; of lists their parts with blanks between."""
    if isinstance(value, list) and all(isinstance(each, str | int) for each in value):
        return " ".join(map(str, value))
    if isinstance(value, str) and asked and not value.isascii() and _HALF.search(value):
        raise table.fault(
            row, f", column {column!r}: {value!r:.60} has half a character; expected Unicode text"
        )
    if isinstance(value, str | int | float) or value is None or not asked:
        return "" if value is None or not asked else str(value).strip()
    raise table.fault(row, f", column {column!r}: {value!r:.60} is no text; expected text")
