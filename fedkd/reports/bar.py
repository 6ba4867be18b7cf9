"""A bar for long work that is no federation: what it is at, and how much of it is done."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from fedkd.clock import Notify
from fedkd.reports import notebook


@contextmanager
def progress(console: Console) -> Iterator[Notify]:
    """A function to be called with a phase, steps done and steps in all; a phase is a line.

    Where the output is neither a terminal nor a notebook nothing is drawn.
    """
    bar = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None, table_column=Column(max_width=40)),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    lines = {}

    def notify(phase: str, done: int, total: int) -> None:
        if phase not in lines:
            lines[phase] = bar.add_task(phase, total=total)
        bar.update(lines[phase], completed=done, total=total)

    shown = notebook.live(bar, console)
    shown.start()
    try:
        yield notify
    finally:
        shown.stop()
