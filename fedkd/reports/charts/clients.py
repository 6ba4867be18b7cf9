"""Each client's teacher against the student, drawn."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from fedkd.reports.charts.axes import share_axis
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
from fedkd.reports.wording import percent, shorten
from fedkd.runs.schema import Round, TeacherScores


def accuracy_by_client(last: Round, teachers: dict[int, TeacherScores]) -> Chart:
    """Each teacher against the student: bars up to `LEGIBLE` clients, beyond that dots by model."""
    student = last.student.accuracy
    few = len(teachers) <= LEGIBLE
    models = list(dict.fromkeys(t.model for t in teachers.values()))

    def draw(axes: Axes, width: int) -> None:
        limit = 24 if width == WIDE else 14
        if few:
            _bars(axes, teachers, limit)
        else:
            _strips(axes, teachers, models, limit)
        axes.axvline(student, color=STUDENT, linewidth=2.2, zorder=4)
        axes.annotate(
            f"Student {percent(student)}", (student, 1), (0, 4), textcoords="offset points",
            xycoords=axes.get_xaxis_transform(), ha="right" if student > 0.75 else "center",
            color=STUDENT, fontweight="bold", annotation_clip=False,
        )  # fmt: skip
        share_axis(axes)

    height = 62.0 + (25 * len(teachers) if few else 66 * len(models))
    return chart(
        "by-client",
        "Accuracy by client",
        _beaten(student, teachers),
        draw,
        heights=(height, height),
    )


def _bars(axes: Axes, teachers: dict[int, TeacherScores], limit: int) -> None:
    values = [t.accuracy for t in teachers.values()]
    axes.barh(range(len(values)), values, height=0.68, color=PALE_TEACHERS)
    for row, value in enumerate(values):
        # At the bar's foot: at its end the student's line may pass.
        axes.annotate(percent(value), (0, row), (6, 0), textcoords="offset points", va="center")
    names = [f"{client} · {shorten(t.model, limit)}" for client, t in teachers.items()]
    axes.set_yticks(range(len(values)), names, color=INK)
    axes.set_ylim(len(values) - 0.4, -0.6)


def _strips(
    axes: Axes, teachers: dict[int, TeacherScores], models: Sequence[str], limit: int
) -> None:
    # The golden ratio scatters neighbours apart without a draw.
    offsets = [(index * 0.618034 % 1 - 0.5) * 0.6 for index in range(len(teachers))]
    x = [t.accuracy for t in teachers.values()]
    y = [models.index(t.model) + o for t, o in zip(teachers.values(), offsets, strict=True)]
    axes.scatter(x, y, s=42, color=TEACHERS, alpha=0.45, linewidth=0)
    axes.set_yticks(range(len(models)), [shorten(m, limit) for m in models], color=INK)
    axes.set_ylim(len(models) - 0.5, -0.5)


def _beaten(student: float, teachers: dict[int, TeacherScores]) -> str:
    ranked = sorted(teachers.items(), key=lambda item: item[1].accuracy)
    (worst, low), (best, high) = ranked[0], ranked[-1]
    beaten = sum(t.accuracy < student for t in teachers.values())
    if len(teachers) == 1:
        how = "better" if beaten else "no better"
        return f"The student does {how} than the teacher ({high.model}, {percent(high.accuracy)})."
    how_many = "all" if beaten == len(teachers) else f"{beaten} of"
    return (
        f"The student does better than {how_many} {len(teachers)} teachers; the best is client "
        f"{best} ({high.model}, {percent(high.accuracy)}), the weakest client {worst} "
        f"({low.model}, {percent(low.accuracy)})."
    )
