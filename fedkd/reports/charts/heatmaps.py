"""Clients by classes, drawn as heat maps: what each holds, and what each teacher learnt of it."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fedkd.reports.charts.drawing import (
    FAINT,
    GAP,
    INK,
    LEGIBLE,
    MUTED,
    ON_FAINT,
    ON_STRONG,
    RAMP,
    STUDENT,
    WIDE,
    Chart,
    chart,
)
from fedkd.reports.figures import title
from fedkd.reports.grid import Grid, numbers
from fedkd.reports.wording import percent, plural, shorten
from fedkd.runs.schema import Partition, Round
from fedkd.runs.scores import ShownScore

_QUANTILES = {
    "best": 1.0,
    "upper quarter": 0.75,
    "median": 0.5,
    "lower quarter": 0.25,
    "worst": 0.0,
}


def score_by_class(last: Round, classes: Sequence[str], score: ShownScore) -> Chart | None:
    """The score of the student and of each teacher in each class; None where it has no classes.

    Beyond `LEGIBLE` clients the rows are quantiles over the teachers instead of the teachers.
    """
    if (of_student := last.student.by_class(score.by_class)) is None or not score.share:
        return None
    teachers = last.teachers.by_client if last.teachers is not None else {}
    student = np.array([of_student], dtype=float)
    by_teacher = np.array(
        [t.by_class(score.by_class) for t in teachers.values()], dtype=float
    ).reshape(-1, len(classes))
    names, rows = [f"client {client}" for client in teachers], by_teacher
    name = title(score)
    heading = f"{name} by client and class" if teachers else f"{name} of the student by class"
    if len(teachers) > LEGIBLE:
        heading, names = f"{name} by class, quantiles over clients", list(_QUANTILES)
        rows = _quantiles(by_teacher)
    values = 100 * np.concatenate([student, rows])
    names = ["Student", *names]

    def draw(axes: Axes, width: int) -> None:
        cells(axes, values, names=names, classes=classes, width=width, top=100, form=_whole)
        axes.get_yticklabels()[0].set(color=STUDENT, fontweight="bold")
        if len(values) > 1:
            axes.axhline(0.5, color=INK, linewidth=1.5)

    caption = _strengths(student[0], by_teacher, classes)
    heading += ", %"
    grid = numbers(heading, "Model", values, names=names, heads=classes, form=_tenths)
    heading += " (faint 0, strong 100)"
    return chart(
        "by-class", heading, caption, draw, heights=heights(len(values), classes), grid=grid
    )


def confusion(table: Sequence[Sequence[float | None]], classes: Sequence[str]) -> Chart:
    """What the student takes each class for: true classes by row, predicted ones by column."""
    counts = np.array(table, dtype=float)
    names = [f"is {shorten(name, 16)}" for name in classes]

    def draw(axes: Axes, width: int) -> None:
        form = _exact if width == WIDE else _brief
        top = max(1.0, counts.max())
        cells(axes, counts, names=names, classes=classes, width=width, top=top, form=form)
        axes.set_xlabel("taken for")

    wrong = counts - np.diag(counts.diagonal())
    row, column = divmod(int(wrong.argmax()), len(wrong))
    caption = "The student takes no record for another class than its own."
    if most := int(wrong[row, column]):
        caption = (
            f"Of {wrong.sum():,.0f} records that the student takes for another class, most are "
            f"{classes[row]} taken for {classes[column]} ({most:,})."
        )
    heading = "Test records by class and what they are taken for"
    grid = numbers(heading, "Class", counts, names=names, heads=classes, form=_count)
    heading += f" (faint 0, strong {counts.max():,.0f})"
    return chart(
        "confusion", heading, caption, draw, heights=heights(len(counts), classes), grid=grid
    )


def _quantiles(by_teacher: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the clients, (clients, C) -> (5, C); a class without test samples stays NaN."""
    known = np.where(np.isnan(by_teacher), -1.0, by_teacher)
    rows = np.quantile(known, list(_QUANTILES.values()), axis=0)
    return np.where(np.isnan(by_teacher).any(axis=0), np.nan, rows)


def _strengths(
    student: NDArray[np.float64], by_teacher: NDArray[np.float64], classes: Sequence[str]
) -> str:
    if np.isnan(student).all():
        return "The test set has no sample of any class."
    best, worst = int(np.nanargmax(student)), int(np.nanargmin(student))
    text = (
        f"The student is best at {classes[best]} ({percent(student[best])}) and weakest at "
        f"{classes[worst]} ({percent(student[worst])})"
    )
    known = int((~np.isnan(by_teacher)).sum())
    if not known:
        return f"{text}."
    pairs = f"{int((by_teacher < 0.1).sum()):,} of {known:,} pairs of client and class"
    return f"{text}; in {pairs} the teacher stays under 10%."


def partition(parts: Partition) -> Chart:
    """The samples that each client holds of each class or label, and in all."""
    counts = np.array(parts.counts, dtype=float)
    by_class = parts.sizes is None
    sizes = counts.sum(axis=1) if by_class else np.array(parts.sizes, dtype=float)
    names = [f"client {client}" for client in range(len(counts))]
    top = max(1.0, counts.max())

    def draw(axes: Axes, width: int) -> None:
        form = _exact if width == WIDE else _brief
        cells(axes, counts, names=names, classes=parts.classes, width=width, top=top, form=form)
        if len(counts) <= LEGIBLE:
            _totals(axes, sizes)

    kind = "class" if by_class else "label or number"
    what = f"Training samples by client and {kind}"
    if parts.classes == ("tokens",):
        what = "How many tokens the targets of each client's training samples have"
    heading = f"{what} (faint 0, strong {top:,.0f})"
    text = _sizes(sizes) + (f"; {_skew(counts, sizes)}." if by_class else ".")
    grid: Grid | None = None
    if len(counts) <= LEGIBLE:
        whole, heads = np.column_stack([counts, sizes]), [*parts.classes, "samples in all"]
        grid = numbers(what, "Client", whole, names=names, heads=heads, form=_count)
    return chart(
        "partition", heading, text, draw, heights=heights(len(counts), parts.classes), grid=grid
    )


def _totals(axes: Axes, totals: NDArray[np.float64]) -> None:
    for row, total in enumerate(totals):
        axes.annotate(
            f"{total:,.0f}", (1.01, row), xycoords=axes.get_yaxis_transform(), va="center",
            color=MUTED, annotation_clip=False,
        )  # fmt: skip


def _sizes(totals: NDArray[np.float64]) -> str:
    most, fewest = int(totals.argmax()), int(totals.argmin())
    return (
        f"Client {most} holds the most samples ({totals[most]:,.0f}), client {fewest} the fewest "
        f"({totals[fewest]:,.0f})"
    )


def _skew(counts: NDArray[np.float64], totals: NDArray[np.float64]) -> str:
    shares = np.cumsum(-np.sort(-counts, axis=1), axis=1) / np.maximum(totals, 1)[:, None]
    needed = np.minimum((shares < 0.8).sum(axis=1) + 1, counts.shape[1])
    return (
        "half of the clients have 80% of theirs in "
        f"{plural(int(np.median(needed)), 'class')} of {counts.shape[1]} or fewer"
    )


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _tenths(value: float) -> str:
    return f"{value:.1f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _exact(value: float) -> str:
    return f"{value:.0f}" if value else "·"


def _brief(value: float) -> str:
    """At most four signs, where a cell is narrow."""
    if value < 1000:
        return _exact(value)
    return f"{value / 1000:.{1 if value < 9950 else 0}f}k"


def heights(rows: int, classes: Sequence[str]) -> tuple[float, float]:
    """Of a heat map of so many rows, wide and narrow, in pixels."""
    row = 25.0 if rows <= LEGIBLE + 1 else max(2.0, 420 / rows)
    name = max(len(shorten(c, 16)) for c in classes)
    return 40 + row * rows + 5 * name, 40 + row * rows + 8 * name


def cells(
    axes: Axes,
    values: NDArray[np.float64],
    *,
    names: Sequence[str],
    classes: Sequence[str],
    width: int,
    top: float,
    form: Callable[[float], str],
) -> None:
    """A heat map from 0 to `top`; a number in each cell where cells have room; NaN is hatched."""
    rows, columns = values.shape
    axes.imshow(values, RAMP, vmin=0, vmax=top, aspect="auto", interpolation="none")
    if np.isnan(values).any():
        axes.patch.set(hatch="////", edgecolor=FAINT, facecolor=GAP, linewidth=0)
    few, room = rows <= LEGIBLE + 1, (width - 110) / columns
    if few and room >= 24:
        _numbers(axes, values, 0.6 * top, form, 13 if width == WIDE else 10)
    axes.grid(visible=False)
    if few:
        axes.hlines(np.arange(0.5, rows - 1), -0.5, columns - 0.5, color=GAP, linewidth=1.5)
    if columns <= LEGIBLE:
        axes.vlines(np.arange(0.5, columns - 1), -0.5, rows - 0.5, color=GAP, linewidth=1.5)
    every = 1 if few else int(np.ceil(rows / 20 / 5) * 5)
    axes.set_yticks(range(0, rows, every), names[::every], color=INK)
    every = int(np.ceil(17 / room))
    labels = [shorten(c, 16) for c in classes[::every]]
    axes.set_xticks(range(0, columns, every), labels)
    if max(map(len, labels)) * 7 > room * every:
        for label in axes.get_xticklabels():
            label.set(rotation=90, rotation_mode="anchor", ha="right", va="center")
    axes.spines[:].set_visible(False)


def _numbers(
    axes: Axes, values: NDArray[np.float64], strong: float, form: Callable[[float], str], size: int
) -> None:
    """The values in their cells, in another colour on what is above `strong`."""
    for (row, column), value in np.ndenumerate(values):
        axes.text(
            column, row, "–" if np.isnan(value) else form(value), ha="center", va="center",
            color=ON_STRONG if value > strong else ON_FAINT, fontsize=size, in_layout=False,
        )  # fmt: skip
