"""A distillation drawn: how its models learned, epoch by epoch."""

from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fedkd.reports.charts.axes import frame_score, label_ends
from fedkd.reports.charts.drawing import MUTED, SERIES, STUDENT, TEACHERS, WIDE, Chart, chart
from fedkd.reports.figures import above, better, figure, named, title
from fedkd.reports.wording import shorten
from fedkd.runs.distil_schema import PLAIN, DistilRun, Epoch

_HEIGHTS = (340.0, 300.0)


def _lines(run: DistilRun) -> list[tuple[str, str, Sequence[Epoch]]]:
    """The way's own trainings, each with its name and colour; the student's is the last."""
    *others, last = run.lessons
    colours = {name: SERIES[i % len(SERIES)] for i, name in enumerate(others)}
    named = [(shorten(name, 14).capitalize(), colours[name], run.stage(name)) for name in others]
    return [*named, ("Student", STUDENT, run.stage(last))]


def score_by_epoch(run: DistilRun) -> Chart:
    """The student beside itself without a teacher, and where the teachers stand."""
    lines, score = _lines(run), run.summary.headline
    if alone := run.stage(PLAIN):
        lines.insert(0, ("Alone", MUTED, alone))

    def draw(axes: Axes, width: int) -> None:
        ends = []
        for name, colour, epochs in lines:
            x, y = [each.epoch for each in epochs], [each.number(score.figure) for each in epochs]
            style, thick = ("--", 1.5) if name == "Alone" else ("-", 2.6)
            marker = "o" if len(x) == 1 or (len(x) <= 20 and name == "Student") else None
            axes.plot(x, y, style, marker=marker, color=colour, linewidth=thick)
            ends.append((name, y[-1], colour))
        if run.summary.teachers:
            reached = {n: t.number(score.figure) for n, t in enumerate(run.summary.teachers)}
            best = reached[score.ranked(reached)[0]]
            axes.axhline(best, color=TEACHERS, linewidth=1.5, linestyle=":")
            ends.append(("Teacher" if len(run.summary.teachers) == 1 else "Best", best, TEACHERS))
        frame_score(axes, score)
        label_ends(axes, ends, height=_HEIGHTS[width < WIDE], form=partial(figure, score))
        axes.set_xlabel("epoch")

    return chart(
        "by-epoch", f"{title(score)} by epoch{better(score)}", _course(run), draw, heights=_HEIGHTS
    )


def loss_by_epoch(run: DistilRun) -> Chart | None:
    """The loss that the student minimised, and those of the trainings before it; None if untold."""
    lines = [
        (name, colour, [(each.epoch, each.loss) for each in epochs if each.loss is not None])
        for name, colour, epochs in _lines(run)
    ]
    drawn = [line for line in lines if line[2]]
    if not drawn:
        return None

    def draw(axes: Axes, width: int) -> None:
        for _, colour, points in drawn:
            axes.plot(*zip(*points, strict=True), "o-", color=colour, linewidth=2.6, markersize=5)
        axes.set_ylim(bottom=min(0.0, *(loss for _, _, points in drawn for _, loss in points)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(visible=False, axis="x")
        ends = [(name, points[-1][1], colour) for name, colour, points in drawn]
        label_ends(axes, ends, height=_HEIGHTS[width < WIDE], form=lambda loss: f"{loss:.3g}")
        axes.set_xlabel("epoch")

    parts = [f"{each.name} ({each.parameters['weight']:g})" for each in run.distillation.knowledge]
    what = f"; knowledge with its weight: {', '.join(parts)}" if parts else ""
    caption = f"The mean of what is minimised, over the training set{what}."
    return chart("loss", "Loss by epoch", caption, draw, heights=_HEIGHTS)


def _course(run: DistilRun) -> str:
    score = run.summary.headline
    student = run.summary.student.number(score.figure)
    text = f"The student ends at {named(score, student)}"
    if run.summary.plain is not None:
        text += (
            f", {above(score, student - run.summary.plain)} itself on labels alone "
            f"({figure(score, run.summary.plain)}; the same start, batches and epochs)"
        )
    return f"{text}. All on the test set."
