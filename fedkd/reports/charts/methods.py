"""Methods side by side, drawn: the student's score over seeds, against bytes, and by round."""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from fedkd.reports.charts.axes import frame_score, label_ends
from fedkd.reports.charts.drawing import INK, SERIES, WIDE, Chart, chart
from fedkd.reports.comparison import ComparisonRow, by_method
from fedkd.reports.figures import UNKNOWN, above, better, figure, name
from fedkd.reports.grid import Grid, columns
from fedkd.reports.wording import plural, shorten, size
from fedkd.runs.schema import FinishedRun
from fedkd.runs.scores import ShownScore


def score_by_method(
    rows: Sequence[ComparisonRow], runs: Sequence[FinishedRun], score: ShownScore
) -> Chart:
    """The student's last score: a dot for each seed, a tick at the mean."""
    groups = by_method(runs)
    values = {
        row.method: [run.summary.student.number(score.figure) for run in groups[row.method]]
        for row in rows
    }
    title = f"Student {name(score)} by method{better(score)}"
    return score_by_group("by-method", title, _lead(rows, score), values, score)


def score_by_group(
    chart_name: str,
    title: str,
    caption: str,
    groups: Mapping[str, Sequence[float]],
    score: ShownScore,
) -> Chart:
    """A score of groups of runs, by name: a dot for each run, a tick at the mean."""

    def draw(axes: Axes, width: int) -> None:
        for place, values in enumerate(groups.values()):
            colour, mean = SERIES[place % len(SERIES)], fmean(values)
            axes.scatter(values, [place] * len(values), s=80, color=colour, alpha=0.5, linewidth=0)
            axes.vlines(mean, place - 0.2, place + 0.2, color=colour, linewidth=3)
            axes.annotate(
                figure(score, mean), (mean, place), (0, -13), color=colour,
                textcoords="offset points", ha="center", va="top",
            )  # fmt: skip
        axes.set_yticks(range(len(groups)), [shorten(each, 16) for each in groups], color=INK)
        axes.set_ylim(len(groups) - 0.35, -0.5)
        axes.margins(x=0.12)
        if score.share:
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.locator_params(axis="x", nbins=8 if width == WIDE else 4)
        axes.grid(visible=False, axis="y")

    height = 44.0 + 54 * len(groups)
    return chart(chart_name, title, caption, draw, heights=(height, height))


def _lead(rows: Sequence[ComparisonRow], score: ShownScore) -> str:
    first = rows[0]
    if len(rows) == 1:
        reached = figure(score, first.student.mean)
        return f"{first.method} reaches {reached} on average; a dot is a seed."
    gap = first.student.mean - rows[1].student.mean
    spreads = [row.student.std for row in rows[:2] if row.student.std is not None]
    text = f"{first.method} is {above(score, gap)} {rows[1].method}, the next"
    if not spreads:
        return f"{text}; with one seed each, chance is not ruled out."
    relation = "more" if abs(gap) > max(spreads) else "no more"
    return f"{text}: {relation} than the larger of their standard deviations over seeds."


def score_by_bytes(rows: Sequence[ComparisonRow], score: ShownScore) -> Chart:
    """The student's last score against all bytes that crossed the wire, both ways, by method."""
    traffic = {row.method: row.bytes_up.mean + row.bytes_down.mean for row in rows}

    def draw(axes: Axes, width: int) -> None:
        axes.set_xscale("log")
        for place, row in enumerate(rows):
            colour, x, y = SERIES[place % len(SERIES)], traffic[row.method], row.student.mean
            if row.student.std is not None:
                axes.vlines(x, y - row.student.std, y + row.student.std, color=colour, alpha=0.4)
            axes.scatter([x], [y], s=80, color=colour, linewidth=0)
            axes.annotate(
                shorten(row.method, 24 if width == WIDE else 12), (x, y), (0, 9), color=colour,
                textcoords="offset points", ha="center",
            )  # fmt: skip
        if score.share:
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("bytes up and down, all rounds and clients")
        axes.margins(x=0.15, y=0.2)

    fewest, most = (f(rows, key=lambda row: traffic[row.method]) for f in (min, max))
    caption = (
        f"{fewest.method} needs the fewest bytes, {size(traffic[fewest.method])} for "
        f"{figure(score, fewest.student.mean)}; {most.method} the most, "
        f"{size(traffic[most.method])} for {figure(score, most.student.mean)}."
    )
    title = f"Student {name(score)} against bytes{better(score)}"
    return chart("by-bytes", title, caption, draw, heights=(320.0, 300.0))


def score_by_method_and_round(
    rows: Sequence[ComparisonRow], runs: Sequence[FinishedRun], score: ShownScore
) -> Chart:
    """The student's score by round: the mean over seeds, banded from worst to best."""
    courses = {row.method: _course(by_method(runs)[row.method], score) for row in rows}
    heights = (340.0, 300.0)

    def draw(axes: Axes, width: int) -> None:
        ends = []
        for place, row in enumerate(rows):
            x, values = list(courses[row.method]), np.array(list(courses[row.method].values()))
            if not x:
                continue
            colour = SERIES[place % len(SERIES)]
            axes.fill_between(x, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.14,
                              linewidth=0)  # fmt: skip
            dashes = "-" if place < len(SERIES) else "--"
            mean = values.mean(axis=1)
            axes.plot(x, mean, color=colour, linewidth=2, linestyle=dashes,
                      marker="o" if len(x) <= 20 else "", markersize=4)  # fmt: skip
            ends.append((shorten(row.method, 12), float(mean[-1]), colour))
        frame_score(axes, score)
        label_ends(axes, ends, height=heights[width < WIDE], form=partial(figure, score))
        axes.set_xlabel("round")

    heading = f"Student {name(score)} by round{better(score)}"
    caption = _first(rows, runs, score)
    cells = tuple(
        (str(number), *(_mean(score, course.get(number)) for course in courses.values()))
        for number in sorted({number for course in courses.values() for number in course})
    )
    grid = Grid(heading, columns("Round", *courses), cells, tall=True)
    return chart("by-method-and-round", heading, caption, draw, heights=heights, grid=grid)


def _course(runs: Sequence[FinishedRun], score: ShownScore) -> dict[int, list[float]]:
    """The student's scores, a figure a run, by round.

    Of the rounds after which all were scored: runs may differ in length, and in when they are.
    """
    scored = [{each.round: each.student for each in run.scored} for run in runs]
    shared = (number for number in scored[0] if all(number in each for each in scored))
    return {number: [each[number].number(score.figure) for each in scored] for number in shared}


def _mean(score: ShownScore, values: Sequence[float] | None) -> str:
    return UNKNOWN if values is None else figure(score, float(np.mean(values)))


def _first(rows: Sequence[ComparisonRow], runs: Sequence[FinishedRun], score: ShownScore) -> str:
    start = {
        method: float(np.mean([run.scored[0].student.number(score.figure) for run in method_runs]))
        for method, method_runs in by_method(runs).items()
    }
    leader = score.ranked(start)[0]
    begun = figure(score, start[leader])
    text = f"After round {runs[0].scored[0].round} {leader} leads with {begun}"
    if len(rows) == 1:
        return f"{leader} goes from {begun} to {figure(score, rows[0].student.mean)}."
    last = rows[0]
    verb = f"{last.method} {'still ' if last.method == leader else ''}leads"
    seeds = plural(len(last.seeds), "seed")
    return f"{text}; at the end {verb} with {figure(score, last.student.mean)} (mean over {seeds})."
