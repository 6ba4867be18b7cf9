"""Columns of a table that say what a row is and whose, and which rows are held out."""

import logging
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from fedkd.data.holdout import held_out
from fedkd.data.readers.tables.cells import Cells
from fedkd.data.types import Samples
from fedkd.errors import DataError
from fedkd.tasks import Targets

log = logging.getLogger(__name__)

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_FEW_ROWS = 20
"""With fewer, a label for each row is no sign of anything."""


def encode(cells: list[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Codes from 0, int64 (N,), and names, sorted as numbers if all are integers, else as text."""
    integers = all(_INTEGER.fullmatch(cell) for cell in cells)
    if integers:
        cells = [plain(cell) for cell in cells]
    names = sorted(set(cells), key=int if integers else str)
    codes = {name: code for code, name in enumerate(names)}
    return torch.tensor([codes[cell] for cell in cells]), tuple(names)


def coded(table: Cells, label: str, class_names: Sequence[str]) -> Tensor:
    """A column of classes as their places among those that the parties agreed on, int64 (N,).

    Raises:
        DataError: a cell names no class.
    """
    codes = {name: code for code, name in enumerate(class_names)}
    cells = [plain(cell) for cell in table.column(label)]
    for n, cell in enumerate(cells):
        if cell not in codes:
            raise table.fault(
                n, f", column {label!r}: {cell!r} is no class; expected {', '.join(class_names)}"
            )
    return torch.tensor([codes[cell] for cell in cells])


def plain(cell: str) -> str:
    """An integer without its sign and zeros in front; other text as it is."""
    return str(int(cell)) if _INTEGER.fullmatch(cell) else cell


def check_classes(table: Cells, label: str, cells: list[str], names: Sequence[str]) -> None:
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


def clients(table: Cells, column: str, train: Tensor) -> Tensor:
    """Whose each training row is, int64 (N_train,)."""
    codes, names = encode(table.column(column))
    for code, name in enumerate(names):
        check_trains(codes[train] == code, f"{table.path}: column {column!r}: all rows of {name!r}")
    return codes[train]


def whose(table: Cells, column: str | None, train: Tensor) -> Tensor | None:
    """Whose each training row is, int64 (N_train,): by the file it is in, or by a column if any."""
    if not table.files:
        return None if column is None else clients(table, column, train)
    firsts = torch.tensor([first for first, _ in table.files])
    groups = torch.searchsorted(firsts, torch.arange(len(table.rows)), right=True) - 1
    for number, (_, path) in enumerate(table.files):
        check_trains(groups[train] == number, f"{path}: all rows")
    return groups[train]


def check_trains(rows: Tensor, whose: str) -> None:
    """Refuse a client that has nothing left to train on."""
    if not rows.any():
        raise DataError(
            f"{whose} were held out for testing; lower data.test_share or drop that client"
        )


def held(table: Cells, rows: Samples, cells: list[str], share: float, seed: int) -> Tensor:
    """Which rows are for testing: bool (N,), `share` of them in expectation."""
    held = held_out(rows.x, cells, share, seed=seed, purpose="csv-test-split")
    for side, what, remedy in ((held, "testing", "raise"), (~held, "training", "lower")):
        if not side.any():
            raise DataError(
                f"{table.path}: data.test_share = {share} of {len(held)} rows leaves no row for "
                f"{what}; {remedy} it, give more rows, or name a file of its own by data.test"
            )
    return held


def values(table: Cells, columns: Sequence[str], targets: Targets) -> Tensor:
    """Numbers, float32 (N, D), or 0 and 1, int64 (N, L)."""
    y = torch.from_numpy(table.numbers(columns))
    if targets == "numbers":
        return y
    for row, place in ((y != 0) & (y != 1)).nonzero()[:1].tolist():
        raise table.fault(
            row, f", column {columns[place]!r}: {y[row, place]:g} is no label; expected 0 or 1"
        )
    return y.long()
