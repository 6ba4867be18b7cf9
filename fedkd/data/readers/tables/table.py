"""A user's own data as tables: a column of labels, and columns of numbers or codes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fedkd import config
from fedkd.data import parties
from fedkd.data.readers.tables import features, files, labels
from fedkd.data.readers.tables.cells import Cells, Point, joined
from fedkd.data.readers.tables.columns import indicator, is_named, may_be_made_of, test_of
from fedkd.data.stream import of_cells
from fedkd.data.types import Dataset, Samples
from fedkd.errors import ConfigError, DataError
from fedkd.tasks import Targets

_IN_CELLS: tuple[Targets, ...] = ("classes", "binary", "numbers")


def load(path: Path, source: config.Source, *, seed: int, targets: Targets = "classes") -> Dataset:
    """Read a table and hold some of its rows out for testing, or take them from `source.test`.

    A row's side follows from the row and the seed alone (`holdout`), so that with one row more or
    less all others stay where they are. Copies of a row are on one side.

    Args:
        path: of one of `files.TABLES`; of `source.clients`, the first one's.
        source: which columns are what, and what is held out. Classes and natural clients stand in
            sorted order. A column with codes becomes a column `X=CODE` for each (`features`). With
            `missing = "indicate"` each column `X` is followed by a column `X?`,
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
    paths = parties.files(source.clients) if source.clients else [path]
    table = _read(paths, source, label)
    for column in source.labels:
        table.require(column, "data.label")
    if source.client is not None:
        table.require(source.client, "data.client")
    taken = [*source.labels, source.client, _stage_column(source)]
    columns = features.of(table, source, taken=[column for column in taken if column is not None])
    x = torch.from_numpy(table.numbers(columns))
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
        if other.resolve() in [each.resolve() for each in paths]:
            raise DataError(
                f"{other}: data.test is this file itself, whose rows are for training; name "
                "another one, or leave it out and data.test_share of the rows are held out"
            )
        test = load_rows(
            other,
            label=label,
            features=columns,
            class_names=class_names,
            decimal=source.decimal,
            targets=targets,
            source=source,
        )
    train = everything.subset(torch.nonzero(~held)[:, 0])
    return Dataset(
        name=parties.called(paths) if source.clients else path.name,
        train=train,
        test=test,
        classes=len(class_names),
        class_names=class_names,
        groups=labels.whose(table, source.client, ~held),
        features=tuple(columns),
        targets=targets,
    )


def load_rows(
    path: Path,
    *,
    label: str,
    features: Sequence[str],
    class_names: Sequence[str],
    decimal: Point = ".",
    targets: Targets = "classes",
    source: config.Source | None = None,
) -> Samples:
    """Read all rows of a party's own table, its columns found by name.

    Args:
        path: as for `load`; columns that were not agreed on are left out.
        label: the column of classes; other targets stand in the columns `class_names`.
        features: the columns that the parties agreed on, in their order; `X?`, where the file has
            only `X`, says where `X` is missing, and `X=CODE` where it has this code.
        class_names: C names; a row's label is one of them.
        decimal: what stands in front of a number's decimals.
        targets: what the targets are.
        source: says by which column rows come in stages; None: by none.

    Raises:
        DataError: names the file, the line and the column.
    """
    wanted = (label,) if targets == "classes" else tuple(class_names)
    staged = None if source is None else _stage_column(source)
    also = wanted if staged is None else (*wanted, staged)
    table = _agreed(path, features, also, decimal)
    for column in wanted:
        table.require(column, "which the parties agreed on")
    x = torch.from_numpy(table.numbers(features))
    stage = None if source is None else _stages(table, source)
    if targets != "classes":
        return Samples(x, labels.values(table, wanted, targets), stage)
    return Samples(x, labels.coded(table, label, class_names), stage)


def _agreed(path: Path, features: Sequence[str], also: Sequence[str], decimal: Point) -> Cells:
    """A table with the columns that the parties agreed on, or what these are made of."""
    needed = {*features, *also, *(name for f in features for name in may_be_made_of(f))}
    table = files.read_all(path, label=also[0], wanted=needed.__contains__, decimal=decimal)
    require(table, features, why="which the parties agreed on")
    return table


def require(table: Cells, features: Sequence[str], *, why: str) -> None:
    """Refuse a table without some of these features, or what they are made of.

    Raises:
        DataError: names the first that it lacks, and why it is needed.
    """
    made = table.made(features)
    for column in features:
        if column not in table.header and made.get(column) not in table.header:
            test = test_of(column)
            if sum(test_of(each) == test for each in features) == 1:
                test = column  # a column of its own, whatever signs are in its name
            hint = table.hint(test)
            if indicator(test) in features:
                hint += "; if it is not measured here, add it and leave its cells empty"
            raise DataError(f"{table.path}: no column {test!r}, {why}: {hint}")


def _read(paths: Sequence[Path], source: config.Source, label: str) -> Cells:
    """The table of one file, or of one file for each client."""
    tables = [
        files.read_all(
            path,
            label=label,
            wanted=lambda column: not is_named(column, source.ignore),
            decimal=source.decimal,
        )
        for path in paths
    ]
    return tables[0] if len(tables) == 1 else joined(paths[0].parent, tables)


def unlabelled(path: Path, source: config.Source, features: Sequence[str]) -> Dataset | None:
    """The rows of a proxy set without labels, all of them; None where the table has a label.

    Raises:
        DataError: as `load_rows`.
    """
    table = _agreed(path, features, source.labels, source.decimal)
    if set(source.labels) & set(table.header):
        return None
    x = torch.from_numpy(table.numbers(features))
    samples = Samples(x, torch.zeros(len(x), 0))
    nobody = samples.subset(torch.arange(0))
    return Dataset(
        path.name, samples, nobody, classes=0, class_names=(), features=tuple(features),
        targets="numbers",
    )  # fmt: skip


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
