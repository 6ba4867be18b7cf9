"""Each client's teacher against the student, drawn."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from fedkd.reports.charts.axes import score_axis
from fedkd.reports.charts.drawing import (
    INK,
    LEGIBLE,
    PALE_TEACHERS,
    STUDENT,
    TEACHERS,
    WIDE,
    Chart,
    chart,
)
from fedkd.reports.figures import better, figure, known, title
from fedkd.reports.grid import Grid, GridColumn
from fedkd.reports.wording import shorten
from fedkd.runs.schema import Round, TeacherScores
from fedkd.runs.scores import ShownScore


def score_by_client(last: Round, teachers: dict[int, TeacherScores], score: ShownScore) -> Chart:
    """Each teacher against the student: bars up to `LEGIBLE` clients, beyond that dots by model."""
    student = last.student.number(score.figure)
    reached = {client: t.number(score.figure) for client, t in teachers.items()}
    few = len(teachers) <= LEGIBLE
    largest = max(known([student, *reached.values(), 1.0 if score.share else 0.0]))
    models = list(dict.fromkeys(t.model for t in teachers.values()))

    def draw(axes: Axes, width: int) -> None:
        limit = 24 if width == WIDE else 14
        if few:
            _bars(axes, teachers, score, limit)
        else:
            _strips(axes, teachers, models, score, limit)
        axes.axvline(student, color=STUDENT, linewidth=2.2, zorder=4)
        axes.annotate(
            f"Student {figure(score, student)}", (student, 1), (0, 4), textcoords="offset points",
            xycoords=axes.get_xaxis_transform(),
            ha="right" if student > 0.75 * largest else "center",
            color=STUDENT, fontweight="bold", annotation_clip=False,
        )  # fmt: skip
        score_axis(axes, score)

    height = 62.0 + (25 * len(teachers) if few else 66 * len(models))
    heading = f"{title(score)} by client{better(score)}"
    heads = (GridColumn("Client"), GridColumn("Model", "text"), GridColumn(title(score)))
    rows = ((str(c), t.model, figure(score, reached[c])) for c, t in teachers.items())
    return chart(
        "by-client",
        heading,
        _beaten(student, teachers, score, of=len(last.participants)),
        draw,
        heights=(height, height),
        grid=Grid(heading, heads, tuple(rows), tall=True),
    )


def _bars(axes: Axes, teachers: dict[int, TeacherScores], score: ShownScore, limit: int) -> None:
    values = [t.number(score.figure) for t in teachers.values()]
    axes.barh(range(len(values)), values, height=0.68, color=PALE_TEACHERS)
    for row, value in enumerate(values):
        # At the bar's foot: at its end the student's line may pass.
        axes.annotate(
            figure(score, value), (0, row), (6, 0), textcoords="offset points", va="center"
        )
    names = [f"{client} · {shorten(t.model, limit)}" for client, t in teachers.items()]
    axes.set_yticks(range(len(values)), names, color=INK)
    axes.set_ylim(len(values) - 0.4, -0.6)


def _strips(
    axes: Axes,
    teachers: dict[int, TeacherScores],
    models: Sequence[str],
    score: ShownScore,
    limit: int,
) -> None:
    # The golden ratio scatters neighbours apart without a draw.
    offsets = [(index * 0.618034 % 1 - 0.5) * 0.6 for index in range(len(teachers))]
    x = [t.number(score.figure) for t in teachers.values()]
    y = [models.index(t.model) + o for t, o in zip(teachers.values(), offsets, strict=True)]
    axes.scatter(x, y, s=42, color=TEACHERS, alpha=0.45, linewidth=0)
    axes.set_yticks(range(len(models)), [shorten(m, limit) for m in models], color=INK)
    axes.set_ylim(len(models) - 0.5, -0.5)


def _beaten(
    student: float, teachers: dict[int, TeacherScores], score: ShownScore, *, of: int
) -> str:
    reached = {c: t.number(score.figure) for c, t in teachers.items()}
    if math.isnan(student) or not known(reached.values()):
        return f"{title(score)} is not defined for the student, or for any of its teachers."
    best, *_, worst = score.ranked({c: v for c, v in reached.items() if not math.isnan(v)}) * 2
    high, low = (figure(score, reached[client]) for client in (best, worst))
    beaten = sum((score.gain(student, value) or 0) > 0 for value in reached.values())
    some = "" if len(teachers) == of else " that were scored"
    if len(teachers) == of == 1:
        how = "better" if beaten else "no better"
        return f"The student does {how} than the teacher ({teachers[best].model}, {high})."
    if len(teachers) == 1:
        how = "better" if beaten else "no better"
        return (
            f"The student does {how} than the one teacher that was scored, client {best} "
            f"({teachers[best].model}, {high})."
        )
    how_many = "all" if beaten == len(teachers) else f"{beaten} of"
    return (
        f"The student does better than {how_many} {len(teachers)} teachers{some}; the best is "
        f"client {best} ({teachers[best].model}, {high}), the weakest client {worst} "
        f"({teachers[worst].model}, {low})."
    )
