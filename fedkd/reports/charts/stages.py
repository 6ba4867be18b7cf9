"""What was learned stage by stage, drawn as a matrix: what a later stage took of earlier ones."""

import numpy as np
from matplotlib.axes import Axes

from fedkd.reports.charts.drawing import INK, WIDE, Chart, chart
from fedkd.reports.charts.heatmaps import cells, heights
from fedkd.reports.figures import figure, title
from fedkd.reports.grid import numbers
from fedkd.runs.continual import ContinualScores
from fedkd.runs.scores import Numbers, ShownScore

_SCENARIOS = {
    "class-incremental": "class-incremental: an answer is one of all classes",
    "task-incremental": "task-incremental: an answer is one of its own stage's classes",
    "domain-incremental": "domain-incremental: the same is asked in each stage",
}


def score_by_stage(told: ContinualScores, score: ShownScore) -> Chart:
    """The student's score on each stage after each stage, and joint training's below."""
    rows: list[Numbers] = list(told.matrix)
    names = [f"after {number}" for number in range(1, len(rows) + 1)]
    for name, other in (
        ("finetuned", None if told.finetuned is None else told.finetuned.matrix[-1]),
        ("joint", told.joint),
    ):
        if other is not None:
            rows.append(other)
            names.append(name)
    scale = 100 if score.share else 1
    values = scale * np.array(rows, dtype=float)
    top = 100.0 if score.share else max(1e-9, float(np.nanmax(values)))
    stages = [f"{number} {name}" for number, name in enumerate(told.stages, 1)]

    form = _percent if score.share else _number

    def draw(axes: Axes, width: int) -> None:
        cells(axes, values, names=names, classes=stages, width=width, top=top, form=form)
        if len(values) > len(told.matrix):
            axes.axhline(len(told.matrix) - 0.5, color=INK, linewidth=1.5)
        if width == WIDE:
            axes.set_ylabel("learned")

    unit = ", %" if score.share else ""
    heading = f"{title(score)}{unit} on each stage, after each stage ({told.scenario})"
    return chart(
        "by-stage",
        heading,
        _caption(told, score),
        draw,
        heights=heights(len(rows), stages),
        grid=numbers(heading, "Learned", values, names=names, heads=stages, form=form),
    )


def _caption(told: ContinualScores, score: ShownScore) -> str:
    parts = [_SCENARIOS[told.scenario].capitalize()]
    named = {
        "the mean after the last": told.average,
        "forgotten": told.forgetting,
        "backward transfer": told.backward_transfer,
        "forward transfer": told.forward_transfer,
    }
    parts.append(", ".join(f"{name} {_shown(value, score)}" for name, value in named.items()))
    if (other := told.finetuned) is not None:
        parts.append(
            f"reminded of nothing the same student has {_shown(other.average, score)} and forgets "
            f"{_shown(other.forgetting, score)}"
        )
    if told.joint is not None:
        parts.append("joint is the student that learned from all stages at once")
    return "; ".join(parts) + "."


def _shown(value: float | None, score: ShownScore) -> str:
    return "–" if value is None else figure(score, value)


def _percent(value: float) -> str:
    return f"{value:.0f}"


def _number(value: float) -> str:
    return f"{value:.3g}"
