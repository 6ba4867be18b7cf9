"""Tables for a terminal: one run, or several side by side."""

import math
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, JustifyMethod
from rich.markup import escape
from rich.table import Table

from fedkd.methods.core.forecast import Forecast
from fedkd.privacy.statement import Statement
from fedkd.reports import figures, wording
from fedkd.reports.comparison import ComparisonRow, Spread, further
from fedkd.runs.ledgers import LedgerAccount
from fedkd.runs.schema import PrivacySummary
from fedkd.runs.scores import ShownScore, shown_headline


def summary(run: dict[str, Any]) -> Table:
    """One run's `summary.json` as a table of two columns."""
    student, teachers, ensemble = run["student"], run["teachers"], run["ensemble"]
    score = shown_headline(run)
    reached = student[score.figure]
    title = escape(f"{run['name']}: {run['method']} on {run['dataset']}")
    table = Table(title=title, show_header=False)
    named = figures.named(score, reached)
    table.add_row("student", f"{named}{figures.better(score)}  ({escape(student['model'])})")
    for other in run.get("scores", ())[1:]:
        if (one := ShownScore.model_validate(other)).number:
            text = f"{figures.figure(one, student[one.figure])}{figures.better(one)}"
            table.add_row(f"  {figures.name(one)}", text)
    if teachers is not None:
        some = f" of {wording.plural(teachers['scored'], 'client')}" if "scored" in teachers else ""
        for name, key in (("best teacher", score.at_best), ("teachers' mean", score.mean)):
            gain = figures.difference(score, _minus(reached, teachers[key]))
            theirs = figures.figure(score, teachers[key])
            table.add_row(f"{name}{some}", f"{theirs}  (student {gain})")
    if ensemble is not None:
        table.add_row("ensemble", figures.figure(score, ensemble[score.figure]))
    if (personal := run.get("personal")) is not None:
        for name, each in (("own models", personal), ("student", personal["student"])):
            if each is not None:
                mean, weighted = (
                    figures.figure(score, each[k]) for k in (score.mean, score.weighted)
                )
                table.add_row(
                    f"{name} on own records", f"mean {mean}, weighted by records {weighted}"
                )
    up, down = (wording.size(run["bytes"][way]) for way in ("up", "down"))
    table.add_row("sent", f"{up} up, {down} down")
    table.add_row("time", wording.duration(run["seconds"]))
    if run["failures"]:
        table.add_row("left out", f"{run['failures']} answers, see rounds.jsonl")
    privacy = wording.cost(PrivacySummary.model_validate(run["privacy"]))
    table.add_row("privacy", privacy.replace("NO DP", "[bold]NO DP[/bold]"))
    return table


def distilled(run: dict[str, Any]) -> Table:
    """A distillation's `summary.json` as a table: a row for each model."""
    score = shown_headline(run)
    gain = ""
    if run["gain"] is not None:
        change = figures.difference(score, run["student"][score.figure] - run["plain"])
        gain = f"; student {change} by {_cause(run)}"
    table = Table(
        title=escape(f"{run['name']}: {run['way']} on {run['dataset']}{gain}"), box=SIMPLE_HEAD
    )
    table.add_column("")
    for name in (figures.name(score), "parameters", "bytes", "1 input", "100 inputs"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, each in [("student", run["student"]), *(("teacher", t) for t in run["teachers"])]:
        table.add_row(
            f"{name} ({escape(each['model'])})",
            figures.figure(score, each[score.figure]),
            f"{each['parameters']:,}",
            wording.size(each["bytes"]),
            *(f"{each['latency'][rows]:.2f} ms" for rows in ("1", "100")),
        )
    if run["plain"] is not None:
        table.add_row("student on labels alone", figures.figure(score, run["plain"]))
    return table


def _cause(run: dict[str, Any]) -> str:
    """What a student has that the student it is compared with has not."""
    return "its teachers" if run["teachers"] else f"the way {run['way']!r}"


def forecast(planned: Forecast) -> Table:
    """What an experiment will cost in privacy: its terms, and all of them together."""
    table = Table(
        title=f"epsilon {planned.epsilon:.4g} of {planned.budget:g} at delta {planned.delta:g} "
        f"({planned.unit}, {planned.adjacency})",
        caption=_forecast_caption(planned),
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("term")
    for name in ("mechanism", "noise", "rate", "steps", "epsilon alone"):
        table.add_column(name, justify="right", no_wrap=True)
    for term in planned.terms:
        table.add_row(
            term.what,
            term.mechanism,
            f"{term.noise_multiplier:.4g}",
            f"{term.sample_rate:g}",
            f"{term.steps:,}",
            f"{term.epsilon:.4g}",
        )
    return table


def _forecast_caption(planned: Forecast) -> str:
    signal = planned.signal
    return (
        f"by {planned.enforced_by}; by RDP at its best order {planned.epsilon_rdp:.4g}\n"
        f"the budget needs a noise multiplier of {planned.noise_needed:.4g}\n"
        f"signal to noise at most {signal.ratio:.3g}, hopeless below {signal.least:g}: "
        f"{signal.what}"
    )


def ledger(account: LedgerAccount) -> Group:
    """One account of a ledger: what was spent in all, and release by release."""
    statement = account.statement
    facts = Table(title=escape(str(account.path)), show_header=False)
    for name, value in _account(statement):
        facts.add_row(name, escape(value))
    releases = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("release", "what happened", "state", "sampler", "noise from", "uncovered"):
        releases.add_column(name)
    for each in statement.releases:
        cells = ("purpose", "events", "state", "sampler", "generator")
        uncovered = ", ".join(each["uncovered"]) or "nothing"
        releases.add_row(*(escape(each[key] or "-") for key in cells), escape(uncovered))
    return Group(facts, releases)


def _account(statement: Statement) -> list[tuple[str, str]]:
    if statement.epsilon is None or statement.left is None or statement.epsilon_rdp is None:
        return [("chain", statement.chain), ("spent", "cannot be read")]
    return [
        ("chain", statement.chain),
        ("unit", f"{statement.unit}, {statement.adjacency}, delta {statement.delta:g}"),
        ("epsilon", f"{statement.epsilon:.4g} by PLD, {statement.epsilon_rdp:.4g} by RDP"),
        (
            "budget",
            f"{statement.budget:g}, of which {statement.left:.4g} is left; "
            f"allowed: {statement.allowed:g}",
        ),
        ("plan", "committed" if statement.committed else "not committed: chosen as it went"),
        ("enforced by", statement.enforced_by),
        ("head", f"row {statement.sequence}, {(statement.head or '')[:16]}"),
    ]


def comparison(rows: Sequence[ComparisonRow]) -> Table:
    """Methods side by side: mean and standard deviation over seeds, the best student first."""
    score = rows[0].score
    unit = " in %" if score.share else figures.better(score)
    table = Table(
        title=f"Test {figures.name(score)}{unit} after the last round, mean ± standard deviation "
        "over seeds",
        caption="best: of all rounds and epochs, chosen on the test set as papers do",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    heads = ("method", "seeds", "student", "best", "teachers", "ensemble", "up", "down", "time")
    beside = further(rows)
    for name in (*heads, *beside):
        justify: JustifyMethod = "left" if name == "method" else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for row, *figures_beside in zip(rows, *beside.values(), strict=True):
        table.add_row(
            escape(row.method),
            str(len(row.seeds)),
            _spread(score, row.student),
            _spread(score, row.student_best),
            _spread(score, row.teachers),
            _spread(score, row.ensemble),
            wording.size(row.bytes_up.mean),
            wording.size(row.bytes_down.mean),
            f"{row.seconds.mean:.0f} s",
            *figures_beside,
        )
    return table


def _spread(score: ShownScore, spread: Spread | None) -> str:
    return "-" if spread is None else figures.spread(score, spread.mean, spread.std)


def _minus(figure: float | None, other: float | None) -> float:
    """A difference; NaN where one is not defined."""
    return math.nan if figure is None or other is None else figure - other
