"""A user's own data as one CSV file: a header, a column of labels, and columns of numbers."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fedkd import config
from fedkd.data.readers.tables import csv_file, labels
from fedkd.data.readers.tables.columns import indicator
from fedkd.data.readers.tables.csv_file import Cells, Decimal
from fedkd.data.stream import of_cells
from fedkd.data.types import Dataset, Samples
from fedkd.errors import ConfigError, DataError
from fedkd.tasks import Targets

_IN_CELLS: tuple[Targets, ...] = ("classes", "binary", "numbers")


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
        y, class_names = labels.encode(cells)
        labels.check_classes(table, label, cells, class_names)
        # By the label's own text: its code would depend on which others there are.
        cells = [labels.plain(cell) for cell in cells]
    else:
        y, class_names = labels.values(table, source.labels, targets), source.labels
        cells = [repr(row) for row in y.tolist()]
    everything = Samples(x, y, _stages(table, source))
    if source.test is None:
        held = labels.held(table, everything, cells, source.test_share, seed)
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
        groups=None if source.client is None else labels.clients(table, source.client, ~held),
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
    wanted = (label,) if targets == "classes" else tuple(class_names)
    table = csv_file.read(path, label=wanted[0], decimal=decimal)
    indicators = table.indicators(features)
    for column in (*wanted, *features):
        if column not in table.header and column not in indicators:
            hint = table.hint(column)
            if indicator(column) in indicators:
                hint += "; if it is not measured here, add it and leave its cells empty"
            raise DataError(f"{path}: no column {column!r}, which the parties agreed on: {hint}")
    x = torch.from_numpy(table.numbers(features))
    stage = None if source is None else _stages(table, source)
    if targets != "classes":
        return Samples(x, labels.values(table, wanted, targets), stage)
    return Samples(x, labels.coded(table, label, class_names), stage)


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
