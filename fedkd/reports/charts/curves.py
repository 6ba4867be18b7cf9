"""The student beside its teachers, drawn: over the rounds, or after a single one."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from fedkd.reports.charts.axes import frame_score, label_ends, score_axis
from fedkd.reports.charts.drawing import ENSEMBLE, INK, STUDENT, TEACHERS, WIDE, Chart, chart
from fedkd.reports.figures import above, better, figure, known, title
from fedkd.reports.grid import Grid, columns
from fedkd.runs.schema import Round, Teachers
from fedkd.runs.scores import ShownScore


def score_by_round(rounds: Sequence[Round], score: ShownScore) -> Chart:
    """The student, the ensemble and the teachers' band over the rounds; two rounds at least."""
    heights = (340.0, 300.0)

    def draw(axes: Axes, width: int) -> None:
        few = len(rounds) <= 20
        ends = []
        with_teachers = [(r.round, r.teachers) for r in rounds if r.teachers is not None]
        if with_teachers:
            _band(axes, with_teachers, score)
            if (last := rounds[-1].teachers) is not None:
                ends.append(("Teachers", last.number(score.mean), TEACHERS))
        ensemble = {
            r.round: r.ensemble.number(score.figure) for r in rounds if r.ensemble is not None
        }
        if ensemble:
            x, y = list(ensemble), list(ensemble.values())
            axes.plot(x, y, "D-" if few else "-", color=ENSEMBLE, linewidth=1.5, markersize=4)
            ends.append(("Ensemble", y[-1], ENSEMBLE))
        x, y = [r.round for r in rounds], [r.student.number(score.figure) for r in rounds]
        axes.plot(x, y, "o-" if few else "-", color=STUDENT, linewidth=2.6)
        ends.append(("Student", y[-1], STUDENT))
        frame_score(axes, score)
        label_ends(axes, ends, height=heights[width < WIDE], form=partial(figure, score))
        axes.set_xlabel("round")

    return chart(
        "by-round",
        f"{title(score)} by round{better(score)}",
        _course(rounds, score),
        draw,
        heights=heights,
    )


def _band(axes: Axes, by_round: Sequence[tuple[int, Teachers]], score: ShownScore) -> None:
    """The teachers from worst to best, and their mean: (round, teachers).

    A band over the rounds; of a single round a bar.
    """
    x = [number for number, _ in by_round]
    reached = [
        [t.number(score.figure) for t in teachers.by_client.values()] for _, teachers in by_round
    ]
    low, high = ([end(known(each), default=math.nan) for each in reached] for end in (min, max))
    mean = [teachers.number(score.mean) for _, teachers in by_round]
    if len(x) == 1:
        axes.vlines(x, low, high, color=TEACHERS, alpha=0.3, linewidth=5)
    axes.fill_between(x, low, high, color=TEACHERS, alpha=0.16, linewidth=0)
    axes.plot(x, mean, "_" if len(x) == 1 else "--", color=TEACHERS, linewidth=1.5)


def _course(rounds: Sequence[Round], score: ShownScore) -> str:
    first, last = rounds[0], rounds[-1]
    student = {each.round: each.student.number(score.figure) for each in rounds}
    best = score.ranked(student)[0]
    level = score.gain(student[best], student[last.round]) == 0
    of = {
        r.round: f" on {r.student.records:,} records" if r.student.records else "" for r in rounds
    }
    peak = "" if level else f" (best: {figure(score, student[best])}{of[best]} in round {best})"
    text = (
        f"From round {first.round} to round {last.round} the student goes from "
        f"{figure(score, student[first.round])}{of[first.round]} to "
        f"{figure(score, student[last.round])}{peak}"
    )
    if last.teachers is None:
        return f"{text}."
    reached = [t.number(score.figure) for t in last.teachers.by_client.values()]
    with_teachers = [r for r in rounds if r.teachers is not None]
    if all(len(r.participants) == 1 for r in with_teachers):
        return f"{text}; the teacher (dashed) ends at {_range(reached, score)}."
    if len(with_teachers) == 1:
        return f"{text}; the teachers (bar: worst to best) end at {_range(reached, score)}."
    return (
        f"{text}; the teachers (band: worst to best, dashed: mean) end at {_range(reached, score)}."
    )


def _range(values: Sequence[float], score: ShownScore) -> str:
    low, high = (figure(score, end(known(values), default=math.nan)) for end in (min, max))
    return low if low == high else f"{low} to {high}"


def score_once(last: Round, score: ShownScore) -> Chart | None:
    """The student beside the teachers and the ensemble; None where there is nothing beside it."""
    rows: list[tuple[str, list[float], str]] = [
        ("Student", [last.student.number(score.figure)], STUDENT)
    ]
    if last.ensemble is not None:
        rows.append(("Ensemble", [last.ensemble.number(score.figure)], ENSEMBLE))
    if last.teachers is not None:
        reached = [t.number(score.figure) for t in last.teachers.by_client.values()]
        rows.append(("Teachers", reached, TEACHERS))
    if len(rows) == 1:
        return None

    def draw(axes: Axes, _width: int) -> None:
        for row, (name, values, colour) in enumerate(rows):
            alone = len(values) == 1
            marker, area, opacity = "D" if name == "Ensemble" else "o", 130, 1.0
            if not alone:
                area, opacity = 70, 0.5
            axes.scatter(
                values, [row] * len(values), s=area, color=colour, marker=marker, alpha=opacity,
                linewidth=0,
            )  # fmt: skip
            mean = float(np.mean(values))
            axes.annotate(
                f"{'' if alone else 'mean '}{figure(score, mean)}", (mean, row), (0, -15),
                textcoords="offset points", ha="center", va="top", color=colour,
            )  # fmt: skip
            if not alone:
                axes.vlines(mean, row - 0.18, row + 0.18, color=colour, linewidth=2.5, zorder=4)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], color=INK)
        axes.set_ylim(len(rows) - 0.4, -0.5)
        score_axis(axes, score)

    height = 40.0 + 62 * len(rows)
    return chart(
        "once",
        f"{title(score)} side by side{better(score)}",
        _standing(last, score),
        draw,
        heights=(height, height),
    )


def score_by_epoch(last: Round, score: ShownScore) -> Chart | None:
    """The student within a round; None where it was not measured on the way."""
    curve = [math.nan if value is None else value for value in last.student.curve]
    if len(curve) < 2:
        return None
    heights = (340.0, 300.0)

    def draw(axes: Axes, width: int) -> None:
        ends = [("Student", curve[-1], STUDENT)]
        axes.plot(range(1, len(curve) + 1), curve, color=STUDENT, linewidth=2.6)
        if last.ensemble is not None:
            ends.append(("Ensemble", last.ensemble.number(score.figure), ENSEMBLE))
        if last.teachers is not None:
            reached = {c: t.number(score.figure) for c, t in last.teachers.by_client.items()}
            ends.append(("Best teacher", reached[score.ranked(reached)[0]], TEACHERS))
        for _, level, colour in ends[1:]:
            axes.axhline(level, color=colour, linewidth=1.5, linestyle="--")
        frame_score(axes, score)
        label_ends(axes, ends, height=heights[width < WIDE], form=partial(figure, score))
        axes.set_xlabel("epoch at the server")

    best = score.ranked(dict(enumerate(curve)))[0]
    caption = (
        f"In {len(curve)} epochs at the server the student goes from {figure(score, curve[0])} to "
        f"{figure(score, curve[-1])}; its best is {figure(score, curve[best])}, "
        f"in epoch {best + 1}."
    )
    heading = f"{title(score)} by epoch{better(score)}"
    rows = tuple((str(n), figure(score, value)) for n, value in enumerate(curve, 1))
    grid = Grid(heading, columns("Epoch", "Student"), rows, tall=True)
    return chart("by-epoch", heading, caption, draw, heights=heights, grid=grid)


def _standing(last: Round, score: ShownScore) -> str:
    student, parts = last.student.number(score.figure), []
    if last.teachers is not None:
        reached = {c: t.number(score.figure) for c, t in last.teachers.by_client.items()}
        best = score.ranked(reached)[0]
        parts.append(
            f"{above(score, student - reached[best])} the best teacher, client {best} "
            f"({figure(score, reached[best])})"
        )
    if last.ensemble is not None:
        ensemble = last.ensemble.number(score.figure)
        parts.append(f"{above(score, student - ensemble)} the ensemble ({figure(score, ensemble)})")
    return f"The student, at {figure(score, student)}, is {', and '.join(parts)}."
