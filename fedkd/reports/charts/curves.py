"""The student beside its teachers, drawn: over the rounds, or after a single one."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from fedkd.reports.charts.axes import frame_accuracy, label_ends, share_axis
from fedkd.reports.charts.drawing import ENSEMBLE, INK, STUDENT, TEACHERS, WIDE, Chart, chart
from fedkd.reports.wording import above, percent
from fedkd.runs.schema import Round, Teachers


def accuracy_by_round(rounds: Sequence[Round]) -> Chart:
    """The student, the ensemble and the teachers' band over the rounds; two rounds at least."""
    heights = (340.0, 300.0)

    def draw(axes: Axes, width: int) -> None:
        few = len(rounds) <= 20
        ends = []
        with_teachers = [(r.round, r.teachers) for r in rounds if r.teachers is not None]
        if with_teachers:
            _band(axes, with_teachers)
            ends.append(("Teachers", with_teachers[-1][1].mean_accuracy, TEACHERS))
        ensemble = {r.round: r.ensemble.accuracy for r in rounds if r.ensemble is not None}
        if ensemble:
            x, y = list(ensemble), list(ensemble.values())
            axes.plot(x, y, "D-" if few else "-", color=ENSEMBLE, linewidth=1.5, markersize=4)
            ends.append(("Ensemble", y[-1], ENSEMBLE))
        x, y = [r.round for r in rounds], [r.student.accuracy for r in rounds]
        axes.plot(x, y, "o-" if few else "-", color=STUDENT, linewidth=2.6)
        ends.append(("Student", y[-1], STUDENT))
        frame_accuracy(axes)
        label_ends(axes, ends, height=heights[width < WIDE])
        axes.set_xlabel("round")

    return chart("by-round", "Accuracy by round", _course(rounds), draw, heights=heights)


def _band(axes: Axes, by_round: Sequence[tuple[int, Teachers]]) -> None:
    """The teachers from worst to best, and their mean: (round, teachers)."""
    x = [number for number, _ in by_round]
    accuracies = [[t.accuracy for t in teachers.by_client.values()] for _, teachers in by_round]
    low, high = [min(each) for each in accuracies], [max(each) for each in accuracies]
    axes.fill_between(x, low, high, color=TEACHERS, alpha=0.16, linewidth=0)
    mean = [teachers.mean_accuracy for _, teachers in by_round]
    axes.plot(x, mean, "--", color=TEACHERS, linewidth=1.5)


def _course(rounds: Sequence[Round]) -> str:
    first, last = rounds[0], rounds[-1]
    best = max(rounds, key=lambda r: r.student.accuracy)
    peak = (
        "" if best is last else f" (best: {percent(best.student.accuracy)} in round {best.round})"
    )
    text = (
        f"From round {first.round} to round {last.round} the student goes from "
        f"{percent(first.student.accuracy)} to {percent(last.student.accuracy)}{peak}"
    )
    if last.teachers is None:
        return f"{text}."
    accuracies = [t.accuracy for t in last.teachers.by_client.values()]
    if all(len(r.teachers.by_client) == 1 for r in rounds if r.teachers is not None):
        return f"{text}; the teacher (dashed) ends at {_range(accuracies)}."
    return f"{text}; the teachers (band: worst to best, dashed: mean) end at {_range(accuracies)}."


def _range(values: Sequence[float]) -> str:
    low, high = percent(min(values)), percent(max(values))
    return low if low == high else f"{low} to {high}"


def accuracy_once(last: Round) -> Chart | None:
    """The student beside the teachers and the ensemble; None where there is nothing beside it."""
    rows: list[tuple[str, list[float], str]] = [("Student", [last.student.accuracy], STUDENT)]
    if last.ensemble is not None:
        rows.append(("Ensemble", [last.ensemble.accuracy], ENSEMBLE))
    if last.teachers is not None:
        accuracies = [t.accuracy for t in last.teachers.by_client.values()]
        rows.append(("Teachers", accuracies, TEACHERS))
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
                percent(mean) if alone else f"mean {percent(mean)}", (mean, row), (0, -15),
                textcoords="offset points", ha="center", va="top", color=colour,
            )  # fmt: skip
            if not alone:
                axes.vlines(mean, row - 0.18, row + 0.18, color=colour, linewidth=2.5, zorder=4)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], color=INK)
        axes.set_ylim(len(rows) - 0.4, -0.5)
        share_axis(axes)

    height = 40.0 + 62 * len(rows)
    return chart("once", "Accuracy side by side", _standing(last), draw, heights=(height, height))


def accuracy_by_epoch(last: Round) -> Chart | None:
    """The student within a round; None where it was not measured on the way."""
    curve = last.student.curve
    if len(curve) < 2:
        return None
    heights = (340.0, 300.0)

    def draw(axes: Axes, width: int) -> None:
        ends = [("Student", curve[-1], STUDENT)]
        axes.plot(range(1, len(curve) + 1), curve, color=STUDENT, linewidth=2.6)
        if last.ensemble is not None:
            ends.append(("Ensemble", last.ensemble.accuracy, ENSEMBLE))
        if last.teachers is not None:
            best = max(t.accuracy for t in last.teachers.by_client.values())
            ends.append(("Best teacher", best, TEACHERS))
        for _, level, colour in ends[1:]:
            axes.axhline(level, color=colour, linewidth=1.5, linestyle="--")
        frame_accuracy(axes)
        label_ends(axes, ends, height=heights[width < WIDE])
        axes.set_xlabel("epoch at the server")

    best = max(range(len(curve)), key=curve.__getitem__)
    caption = (
        f"In {len(curve)} epochs at the server the student goes from {percent(curve[0])} to "
        f"{percent(curve[-1])}; its best is {percent(curve[best])}, in epoch {best + 1}."
    )
    return chart("by-epoch", "Accuracy by epoch", caption, draw, heights=heights)


def _standing(last: Round) -> str:
    student, parts = last.student.accuracy, []
    if last.teachers is not None:
        best, teacher = max(last.teachers.by_client.items(), key=lambda item: item[1].accuracy)
        parts.append(
            f"{above(student - teacher.accuracy)} the best teacher, client {best} "
            f"({percent(teacher.accuracy)})"
        )
    if last.ensemble is not None:
        ensemble = last.ensemble.accuracy
        parts.append(f"{above(student - ensemble)} the ensemble ({percent(ensemble)})")
    return f"The student, at {percent(student)}, is {', and '.join(parts)}."
