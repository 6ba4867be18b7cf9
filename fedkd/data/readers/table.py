"""A user's own data as one CSV file: a header, a column of labels, and columns of numbers."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fedkd import config
from fedkd.data.holdout import held_out
from fedkd.data.readers import csv_file
from fedkd.data.readers.columns import indicator
from fedkd.data.readers.csv_file import Cells, Decimal
from fedkd.data.stream import of_cells
from fedkd.data.types import Dataset, Samples
from fedkd.errors import ConfigError, DataError
from fedkd.tasks import Targets

log = logging.getLogger(__name__)

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_IN_CELLS: tuple[Targets, ...] = ("classes", "binary", "numbers")
_FEW_ROWS = 20
"""With fewer, a label for each row is no sign of anything."""


def load(path: Path, source: config.Source, *, seed: int, targets: Targets = "classes") -> Dataset:
    """Read a CSV file and hold some of its rows out for testing, or take them from `source.test`.

    A row's side follows from the row and the seed alone (`holdout`), so that with one row more or
    less all others stay where they are. Copies of a row are on one side.

    Args:
        path: UTF-8, with a header; commas, semicolons or tabs between cells.
        source: which columns are what, and what is held out. Classes and natural clients stand in
            sorted order. With `missing = "indicate"` each column `X` is followed by a column `X?`,
            1 where it is missing, and `X` is 0 there; otherwise a missing cell is refused.
        seed: the experiment's.
        targets: what the columns of labels hold: one column of classes, or one or more of numbers,
            or of 0 and 1.

    Returns:
        Rows of features, (N, F), from all other columns in the file's order, unscaled.
        Whether or not it misses a cell, a file with the same header has the same features.

    Raises:
        DataError: names the file, the line and the column.
        ConfigError: there are several columns of classes, or targets that no cell holds.
    """
    if targets not in _IN_CELLS:
        raise ConfigError(
            f"data.name is {str(path)!r}, whose cells hold classes, labels or numbers, and the "
            f"task asks for {targets}: name an .npz file or a folder, see docs/data.md"
        )
    label, *others = source.labels
    if others and targets == "classes":
        raise ConfigError(
            f"data.label names {len(others) + 1} columns, and a row has one class: name one of "
            f"{', '.join(source.labels)}, or choose a task of several labels or numbers"
        )
    table = csv_file.read(path, label=label, decimal=source.decimal)
    for column in source.labels:
        table.require(column, "data.label")
    if source.client is not None:
        table.require(source.client, "data.client")
    for column in source.ignore:
        table.require(column, "data.ignore")
    features = _features(table, source)
    x = torch.from_numpy(table.numbers(features))
    if targets == "classes":
        cells = table.column(label)
        y, class_names = _encode(cells)
        _check_classes(table, label, cells, class_names)
        # By the label's own text: its code would depend on which others there are.
        cells = [_plain(cell) for cell in cells]
    else:
        y, class_names = _values(table, source.labels, targets), source.labels
        cells = [repr(row) for row in y.tolist()]
    everything = Samples(x, y, _stages(table, source))
    if source.test is None:
        held = _held_out(table, everything, cells, source.test_share, seed)
        test = everything.subset(torch.nonzero(held)[:, 0])
    else:
        held = torch.zeros(len(y), dtype=torch.bool)
        other = Path(source.test).expanduser()
        if other.resolve() == path.resolve():
            raise DataError(
                f"{path}: data.test is this file itself, whose rows are for training; name another "
                "one, or leave it out and data.test_share of the rows are held out"
            )
        test = load_rows(
            other,
            label=label,
            features=features,
            class_names=class_names,
            decimal=source.decimal,
            targets=targets,
            source=source,
        )
    train = everything.subset(torch.nonzero(~held)[:, 0])
    return Dataset(
        name=path.name,
        train=train,
        test=test,
        classes=len(class_names),
        class_names=class_names,
        groups=None if source.client is None else _clients(table, source.client, ~held),
        features=tuple(features),
        targets=targets,
    )


def load_rows(
    path: Path,
    *,
    label: str,
    features: Sequence[str],
    class_names: Sequence[str],
    decimal: Decimal = ".",
    targets: Targets = "classes",
    source: config.Source | None = None,
) -> Samples:
    """Read all rows of a party's own CSV file, its columns found by name.

    Args:
        path: as for `load`; columns that were not agreed on are left out.
        label: the column of classes; other targets stand in the columns `class_names`.
        features: the columns that the parties agreed on, in their order; `X?`, where the file has
            only `X`, says where `X` is missing.
        class_names: C names; a row's label is one of them.
        decimal: what stands in front of a number's decimals.
        targets: what the targets are.
        source: says by which column rows come in stages; None: by none.

    Raises:
        DataError: names the file, the line and the column.
    """
    labels = (label,) if targets == "classes" else tuple(class_names)
    table = csv_file.read(path, label=labels[0], decimal=decimal)
    indicators = table.indicators(features)
    for column in (*labels, *features):
        if column not in table.header and column not in indicators:
            hint = table.hint(column)
            if indicator(column) in indicators:
                hint += "; if it is not measured here, add it and leave its cells empty"
            raise DataError(f"{path}: no column {column!r}, which the parties agreed on: {hint}")
    x = torch.from_numpy(table.numbers(features))
    stage = None if source is None else _stages(table, source)
    if targets != "classes":
        return Samples(x, _values(table, labels, targets), stage)
    codes = {name: c for c, name in enumerate(class_names)}
    cells = [_plain(cell) for cell in table.column(label)]
    for n, cell in enumerate(cells):
        if cell not in codes:
            raise table.fault(
                n, f", column {label!r}: {cell!r} is no class; expected {', '.join(class_names)}"
            )
    return Samples(x, torch.tensor([codes[cell] for cell in cells]), stage)


def _stage_column(source: config.Source) -> str | None:
    """The column by which rows come in stages, if one does; domains are clients unless named."""
    stream = source.stream
    if stream is None or stream.column is not None or stream.by != "domains":
        return None if stream is None else stream.column
    return source.client


def _stages(table: Cells, source: config.Source) -> Tensor | None:
    column, stream = _stage_column(source), source.stream
    if column is None or stream is None:
        return None
    table.require(column, "data.stream.column")
    where = f"{table.path}: column {column!r} (data.stream)"
    return of_cells(table.column(column), stream, where=where)


def _features(table: Cells, source: config.Source) -> list[str]:
    taken = (*source.labels, source.client, _stage_column(source), *source.ignore)
    features = [column for column in table.header if column not in taken]
    if source.missing == "refuse":
        return features
    features = [name for column in features for name in (column, indicator(column))]
    if twice := [name for name in features if features.count(name) > 1]:
        raise DataError(
            f"{table.path}: column {twice[0]!r} has the name of a column that data.missing = "
            "'indicate' makes; rename it"
        )
    return features


def _values(table: Cells, columns: Sequence[str], targets: Targets) -> Tensor:
    """Numbers, float32 (N, D), or 0 and 1, int64 (N, L)."""
    y = torch.from_numpy(table.numbers(columns))
    if targets == "numbers":
        return y
    for row, place in ((y != 0) & (y != 1)).nonzero()[:1].tolist():
        raise table.fault(
            row, f", column {columns[place]!r}: {y[row, place]:g} is no label; expected 0 or 1"
        )
    return y.long()


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


def _check_classes(table: Cells, label: str, cells: list[str], names: Sequence[str]) -> None:
    """Refuse labels that hardly ever repeat; warn of numbers with fractions."""
    where = f"{table.path}: column {label!r} (data.label)"
    if len(cells) >= _FEW_ROWS and 2 * len(names) > len(cells):
        raise DataError(
            f"{where} has {len(names)} different values in {len(cells)} rows, which looks like a "
            "measurement or an identifier, no classes; name another column, or put it into bands"
        )
    values = {name: table.number(name) for name in names}
    if fractions := [n for n, v in values.items() if v is not None and not v.is_integer()]:
        log.warning(
            "%s holds numbers with fractions, such as %s: each of its %d values is a class of its "
            "own; if it is a measurement, put it into bands",
            *(where, fractions[0], len(names)),
        )


def _clients(table: Cells, column: str, train: Tensor) -> Tensor:
    """Whose each training row is, int64 (N_train,)."""
    codes, names = _encode(table.column(column))
    for code, name in enumerate(names):
        if not (codes[train] == code).any():
            raise DataError(
                f"{table.path}: column {column!r}: all rows of {name!r} were held out for testing; "
                "lower data.test_share or drop that client"
            )
    return codes[train]


def _held_out(table: Cells, rows: Samples, cells: list[str], share: float, seed: int) -> Tensor:
    """Which rows are for testing: bool (N,), `share` of them in expectation."""
    held = held_out(rows.x, cells, share, seed=seed, purpose="csv-test-split")
    for side, what, remedy in ((held, "testing", "raise"), (~held, "training", "lower")):
        if not side.any():
            raise DataError(
                f"{table.path}: data.test_share = {share} of {len(held)} rows leaves no row for "
                f"{what}; {remedy} it, give more rows, or name a file of its own by data.test"
            )
    return held
