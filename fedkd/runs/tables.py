"""Tables for a terminal: one run, or several side by side."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import JustifyMethod
from rich.markup import escape
from rich.table import Table

from fedkd.runs import words
from fedkd.runs.comparison import ComparisonRow, Spread


def summary(run: dict[str, Any]) -> Table:
    """One run's `summary.json` as a table of two columns."""
    student, teachers, ensemble = run["student"], run["teachers"], run["ensemble"]
    title = escape(f"{run['name']}: {run['method']} on {run['dataset']}")
    table = Table(title=title, show_header=False)
    table.add_row("student", f"{words.percent(student['accuracy'])}  ({escape(student['model'])})")
    if teachers is not None:
        for name, key in (("best teacher", "best_accuracy"), ("teachers' mean", "mean_accuracy")):
            gain = words.points(student["accuracy"] - teachers[key])
            table.add_row(name, f"{words.percent(teachers[key])}  (student {gain})")
    if ensemble is not None:
        table.add_row("ensemble", words.percent(ensemble["accuracy"]))
    up, down = (words.size(run["bytes"][way]) for way in ("up", "down"))
    table.add_row("sent", f"{up} up, {down} down")
    table.add_row("time", words.duration(run["seconds"]))
    if run["failures"]:
        table.add_row("left out", f"{run['failures']} answers, see rounds.jsonl")
    if run["privacy"]["unit"] == "none":
        table.add_row("privacy", "[bold]NO DP[/bold]: nothing that left a client is protected")
    return table


def comparison(rows: Sequence[ComparisonRow]) -> Table:
    """Methods side by side: mean and standard deviation over seeds, the best student first."""
    table = Table(
        title="Test accuracy in % after the last round, mean ± standard deviation over seeds",
        caption="best: of all rounds and epochs, chosen on the test set as papers do",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in ("method", "seeds", "student", "best", "teachers", "ensemble", "up", "time"):
        justify: JustifyMethod = "left" if name == "method" else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(
            escape(row.method),
            str(len(row.seeds)),
            _share(row.student),
            _share(row.student_best),
            _share(row.teachers),
            _share(row.ensemble),
            words.size(row.bytes_up.mean),
            f"{row.seconds.mean:.0f} s",
        )
    return table


def _share(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    mean = f"{100 * spread.mean:.1f}"
    return mean if spread.std is None else f"{mean} ± {100 * spread.std:.1f}"
