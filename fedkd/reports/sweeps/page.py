"""A sweep's page, beside its runs: one self-contained HTML file; and its table for a terminal."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fedkd.files import write_atomically
from fedkd.reports import figures, html, links, wording
from fedkd.reports.charts.drawing import LEGIBLE, Chart
from fedkd.reports.charts.methods import score_by_group
from fedkd.reports.comparison import Spread
from fedkd.reports.grid import Cell, Grid, GridColumn, Link, columns
from fedkd.reports.parts import Notice, Part, Report, section, sections
from fedkd.reports.sections.comparison import noted
from fedkd.reports.sweeps import spending
from fedkd.reports.sweeps.rows import SweepRow, luck
from fedkd.runs.schema import PrivacySummary
from fedkd.runs.scores import ShownScore


def write(
    rows: Sequence[SweepRow],
    failed: Mapping[str, str],
    told: spending.SweepSpending,
    out: Path,
) -> Path:
    """Write the page to `out`, and return its path.

    Args:
        rows: at least one, the first the best.
        failed: runs that did not come to their end, and why.
        told: what all runs spent.
        out: the file.
    """
    text = html.render(_of(rows, failed, told, out.parent))
    write_atomically(out, text)
    pages = [run.path / "report.html" for row in rows for run in row.runs]
    links.link_back(pages, out)
    return out


def _of(
    rows: Sequence[SweepRow], failed: Mapping[str, str], told: spending.SweepSpending, beside: Path
) -> Report:
    score = rows[0].runs[0].score
    stamp, privacy = spending.in_words(told)
    every = PrivacySummary(unit="record", epsilon=told.every) if told.private else None
    notices = []
    if chosen := _chosen(rows):
        notices.append(Notice("chosen", "No honest choice yet.", chosen))
    if unlike := _unlike(rows):
        differing = f"Rows differ in {unlike}, so they may be scored on unlike test sets."
        notices.append(Notice("unlike", "Not like for like.", differing))
    return Report(
        kind="sweep",
        name="Combinations compared",
        lead=_headline(rows, score),
        stamp=stamp,
        privacy=privacy,
        protected=every is not None and not told.bare and wording.protects(every),
        notices=tuple(notices),
        sections=sections(
            [
                section("failed", "Runs that failed", _failed(failed)),
                section("figures", "Figures by combination", [_figures(rows, score)]),
                section("score", figures.title(score), [_chart(rows, score)]),
                section("runs", "The runs", [_runs(rows, score, beside)]),
            ]
        ),
    )


def _failed(failed: Mapping[str, str]) -> list[Part]:
    if not failed:
        return []
    heads = (GridColumn("Run", "text"), GridColumn("Reason", "words"))
    note = "Their seeds are missing below. `--resume` tries them again."
    return [Grid("Runs that failed", heads, tuple(failed.items()), note)]


def _figures(rows: Sequence[SweepRow], score: ShownScore) -> Grid:
    first = rows[0]
    cells: list[tuple[Cell, ...]] = [
        (
            f"{number}",
            *row.settings.values(),
            f"{len(row.runs)}",
            noted(score, row.student),
            *(noted(score, row.beside.get(name)) for name in first.beside),
            *([wording.size(row.up.mean) if row.up else figures.UNKNOWN] if first.up else []),
            wording.duration(row.seconds.mean),
        )
        for number, row in enumerate(rows, 1)
    ]
    heads = [
        GridColumn("No."),
        *(GridColumn(key, "text") for key in first.settings),
        GridColumn("Seeds"),
        GridColumn("Student", main=True),
        *(GridColumn(name.capitalize()) for name in first.beside),
        *([GridColumn("Up")] if first.up else []),
        GridColumn("Time"),
    ]
    points = ", in points" if score.share else ""
    note = (
        f"Mean ± sample standard deviation over seeds; {figures.name(score)}"
        f"{figures.better(score)} on the test set{points}, after the last round, and at no other "
        "that the test set would choose."
    )
    return Grid("Figures by combination", tuple(heads), tuple(cells), note)


def _runs(rows: Sequence[SweepRow], score: ShownScore, beside: Path) -> Grid:
    cells: list[tuple[Cell, ...]] = [
        (
            Link(run.path.name, links.address(run.path / "report.html", beside)),
            f"{number}",
            f"{run.seed}",
            figures.figure(score, run.student),
        )
        for number, row in enumerate(rows, 1)
        for run in row.runs
    ]
    return Grid("The runs", columns("Run", "Row", "Seed", "Student"), tuple(cells))


def table(rows: Sequence[SweepRow]) -> Table:
    """The rows for a terminal: mean and standard deviation over seeds."""
    score = rows[0].runs[0].score
    unit = " in %" if score.share else figures.better(score)
    found = Table(
        title=f"Test {figures.name(score)}{unit} at the end, mean ± standard deviation over seeds",
        caption=_chosen(rows),
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for key in rows[0].settings:
        found.add_column(escape(key), overflow="fold")
    for name in ("seeds", "student", *rows[0].beside, *(["up"] if rows[0].up else []), "time"):
        found.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        found.add_row(
            *(escape(value) for value in row.settings.values()),
            str(len(row.runs)),
            _spread(score, row.student),
            *(_spread(score, row.beside.get(name)) for name in rows[0].beside),
            *([wording.size(row.up.mean)] if row.up else []),
            wording.duration(row.seconds.mean),
        )
    return found


def _chosen(rows: Sequence[SweepRow]) -> str:
    """That no figure here is that of an honest choice; nothing where there is none to make."""
    if len(rows) == 1:
        return ""
    said = (
        "Scores are of the test set. To take the best of several combinations by them flatters it: "
        "quote the score of the one chosen on records that no run of the sweep was scored on."
    )
    score, gap = rows[0].runs[0].score, luck(rows)
    if gap is None:
        return said
    return (
        f"{said} If all {wording.number(len(rows))} were equally good, chance would show the best "
        f"about {figures.difference(score, gap)[1:]} better than their mean."
    )


def _headline(rows: Sequence[SweepRow], score: ShownScore) -> str:
    runs = sum(len(row.runs) for row in rows)
    best, what = rows[0].student, "highest" if score.higher else "lowest"
    spread = "" if best.std is None else f" ± {figures.deviation(score, best.std)}"
    count = wording.plural(len(rows), "combination")
    reached = f"{figures.named(score, best.mean)}{spread} on the test set"
    if len(rows) == 1:
        return f"{count[0].upper()}{count[1:]}, {wording.plural(runs, 'run')}: {reached}."
    return (
        f"{count[0].upper()}{count[1:]}, {wording.plural(runs, 'run')}: the {what} mean is "
        f"{reached}, by {_label(rows[0])}."
    )


def _label(row: SweepRow) -> str:
    return ", ".join(f"{key}={value}" for key, value in row.settings.items())


def _chart(rows: Sequence[SweepRow], score: ShownScore) -> Chart:
    drawn = [row for row in rows if not math.isnan(row.student.mean)][:LEGIBLE]
    # Rows are called by their place in the table: what they set may be long.
    groups = {
        str(place): [run.student for run in row.runs if not math.isnan(run.student)]
        for place, row in enumerate(drawn, 1)
    }
    which = f"the first {LEGIBLE} of {len(rows)} rows" if len(rows) > LEGIBLE else "each row"
    caption = f"A dot is a seed, a tick their mean; {which} of the table by its number."
    title = f"Student {figures.name(score)} by combination{figures.better(score)}"
    return score_by_group("by-combination", title, caption, groups, score)


def _unlike(rows: Sequence[SweepRow]) -> str:
    """The keys by which rows are scored on unlike test sets; nothing where there are none."""
    split = ("data.public", "data.partition")
    keys = [k for k in rows[0].settings if k.startswith("data") and not k.startswith(split)]
    unlike = [key for key in keys if len({row.settings[key] for row in rows}) > 1]
    return wording.listing(unlike) if unlike else ""


def _spread(score: ShownScore, spread: Spread | None) -> str:
    return "-" if spread is None else figures.spread(score, spread.mean, spread.std)
