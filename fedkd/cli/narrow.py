"""Tables on a narrow terminal: where the columns do not fit, a block for each row."""

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

_WORDS = 20
"""Characters that a column of words keeps at least; narrower ones are a word a line."""


def fitting(shown: RenderableType) -> RenderableType:
    """What is printed, with tables that fit."""
    if isinstance(shown, Table):
        return _Fitting(shown)
    if isinstance(shown, Group):
        return Group(*(fitting(each) for each in shown.renderables))
    return shown


@dataclass(frozen=True)
class _Fitting:
    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if _width(self.table, console, options) <= options.max_width:
            yield self.table
        else:
            yield from _blocks(self.table)


def _width(table: Table, console: Console, options: ConsoleOptions) -> int:
    """What a table needs: single words and figures whole, and of sentences some words a line."""
    wide = options.update(width=10_000)
    natural = Measurement.get(console, wide, table).maximum
    return natural - sum(_spare(each, console, wide) for each in table.columns)


def _spare(column: Column, console: Console, wide: ConsoleOptions) -> int:
    if column.no_wrap:
        return 0
    cells = [Measurement.get(console, wide, each) for each in (column.header, *column.cells)]
    most = max(each.maximum for each in cells)
    return max(0, most - max(_WORDS, *(each.minimum for each in cells)))


def _blocks(table: Table) -> RenderResult:
    if table.title:
        yield Text.from_markup(str(table.title), style="bold")
    first, *others = table.columns
    for number, heading in enumerate(first.cells):
        yield heading
        grid = Table.grid(padding=(0, 2))
        for each in others:
            if cell := list(each.cells)[number]:
                grid.add_row(each.header, cell)
        yield Padding(grid, (0, 0, 0, 2))
    if table.caption:
        yield Text.from_markup(str(table.caption), style="dim")
