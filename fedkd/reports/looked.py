"""What a file of data holds, as tables for a terminal, for its owner alone."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from fedkd.data.looking import ArrayFound, Column, Guess, Looked, Pictures
from fedkd.data.looking.toml import line

NOTE = "These are statistics of its records: for their owner alone, as the records are."
_ROWS, _VALUES = 40, 5


def tables(looked: Looked) -> Group:
    """All of what was found, what is odd, and what is guessed."""
    parts: list[RenderableType] = [
        f"[bold]{escape(repr(looked.path))}[/bold]: {looked.records} records, "
        + escape(looked.form),
        f"[dim]{NOTE}[/dim]",
    ]
    if looked.columns:
        parts.append(_columns(looked.columns))
    if looked.arrays:
        parts.append(_arrays(looked.arrays))
    if looked.pictures is not None:
        parts.append(_pictures(looked.pictures))
    if classes := _classes(looked):
        parts.append(f"classes: {escape(_counts(classes))}")
    if looked.concerns:
        odd = _plain("worth a look", "")
        for concern in looked.concerns:
            odd.add_row(escape(repr(concern.about)) if concern.about else "", escape(concern.what))
        parts.append(odd)
    if looked.missing:
        parts.append(f"[bold]missing[/bold]: {escape(looked.missing)}")
    if looked.guesses:
        parts.append(guessed(looked.guesses, "suggested"))
    return Group(*parts)


def guessed(guesses: Sequence[Guess], title: str) -> Table:
    """Lines of an experiment and why they are guessed."""
    table = _plain(title, "why")
    for guess in guesses:
        table.add_row(escape(line(guess.key, guess.value)), escape(guess.why))
    return table


def _plain(*headers: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def _columns(columns: Sequence[Column]) -> Table:
    table = _plain("column", "kind", "missing", "different", "values")
    for column in columns[:_ROWS]:
        cells = (column.kind, str(column.missing), str(column.distinct), escape(_values(column)))
        table.add_row(escape(repr(column.name)), *cells)
    if (more := len(columns) - _ROWS) > 0:
        table.add_row(f"and {more} more: --json has all")
    return table


def _values(column: Column) -> str:
    if column.low is not None and not column.values:
        return f"{column.low:g} to {column.high:g}"
    return _counts(column.values)


def _counts(values: Sequence[tuple[str, int]]) -> str:
    more = f" and {len(values) - _VALUES} more" if len(values) > _VALUES else ""
    return ", ".join(f"{name!r:.30} {count}" for name, count in values[:_VALUES]) + more


def _arrays(arrays: Sequence[ArrayFound]) -> Table:
    table = _plain("array", "shape", "type", "values")
    for array in arrays:
        ends = "" if array.low is None else f"{array.low:g} to {array.high:g}"
        table.add_row(escape(repr(array.name)), escape(str(array.shape)), array.dtype, ends)
    return table


def _pictures(pictures: Pictures) -> Table:
    table = _plain("height x width x channels", "pictures", "such as")
    for (height, width, channels), count, file in pictures.sizes[:_VALUES]:
        table.add_row(f"{height} x {width} x {channels}", str(count), escape(repr(file)))
    if (more := len(pictures.sizes) - _VALUES) > 0:
        table.add_row(f"and {more} more sizes")
    for name, count in pictures.clients:
        table.add_row(f"client {escape(repr(name))}", str(count))
    if pictures.tests:
        table.add_row("for testing", str(pictures.tests))
    return table


def _classes(looked: Looked) -> Sequence[tuple[str, int]]:
    """How many records each class has, where there are classes."""
    if looked.pictures is not None:
        return looked.pictures.classes
    targets = next((array for array in looked.arrays if array.name == "y_train"), None)
    return () if targets is None or not targets.whole else targets.values
