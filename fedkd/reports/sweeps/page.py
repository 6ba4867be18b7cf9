"""A sweep's page, beside its runs: one self-contained HTML file; and its table for a terminal."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fedkd.files import write_atomically
from fedkd.reports import figures, wording
from fedkd.reports.charts.drawing import LEGIBLE, Chart
from fedkd.reports.charts.methods import score_by_group
from fedkd.reports.comparison import Spread
from fedkd.reports.report import link, page
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
    score = rows[0].runs[0].score
    stamp, privacy = spending.in_words(told)
    every = PrivacySummary(unit="record", epsilon=told.every) if told.private else None
    text = page(
        "sweep.html",
        headline=_headline(rows, score),
        score=score,
        rows=rows,
        keys=list(rows[0].settings),
        beside=list(rows[0].beside),
        traffic=rows[0].up is not None,
        failed=failed,
        chosen=_chosen(rows),
        unlike=_unlike(rows),
        stamp=stamp,
        privacy=privacy,
        protected=every is not None and not told.bare and wording.protects(every),
        chart=_chart(rows, score),
        link=lambda run: link(run.path / "report.html", out.parent),
    )
    write_atomically(out, text)
    return out


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
