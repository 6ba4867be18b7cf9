"""Figures of scores in words: a share as a percentage, all else with as many digits as tell."""

import math
from collections.abc import Iterable

from fedkd.reports.wording import percent, points
from fedkd.runs.schema import FinishedRun
from fedkd.tasks import ACCURACY, Figures

_ACRONYMS = {"auroc": "AUROC", "f1": "F1", "mae": "MAE", "mse": "MSE", "r2": "R²", "rmse": "RMSE"}
UNKNOWN = "–"
"""In place of a figure that is not defined, as the AUROC of a single class is not."""


def name(score: Figures) -> str:
    """What a score is called in a sentence: `accuracy`, `macro F1`, `AUROC`."""
    return " ".join(_ACRONYMS.get(part, part) for part in score.name.split("-"))


def title(score: Figures) -> str:
    """The same at the beginning of a heading."""
    return name(score)[0].upper() + name(score)[1:]


def better(score: Figures) -> str:
    """A note for scores of which less is better; nothing for others."""
    return "" if score.higher else " (lower is better)"


def figure(score: Figures, value: float | None) -> str:
    """`83.1%` of a share, `0.431` of anything else."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return percent(value) if score.share else f"{value:.4g}"


def difference(score: Figures, value: float) -> str:
    """A difference of two figures with its sign: `+5.2 points`, `−0.12`."""
    if math.isnan(value):
        return UNKNOWN
    if score.share:
        return points(value)
    return f"{'−' if value < 0 else '+' if value > 0 else '±'}{abs(value):.3g}"


def above(score: Figures, value: float) -> str:
    """A difference as `5.2 points above`, `0.12 below` or `level with`."""
    text = difference(score, value)
    if text == UNKNOWN:
        return "not comparable with"
    if text.startswith("±"):
        return "level with"
    return f"{text[1:]} {'above' if text.startswith('+') else 'below'}"


def deviation(score: Figures, value: float) -> str:
    """A standard deviation, that of a share in points."""
    return f"{100 * value:.1f}" if score.share else f"{value:.3g}"


def spread(score: Figures, mean: float, std: float | None) -> str:
    """`83.1 ± 0.4`, a share in per cent without the sign."""
    if math.isnan(mean):
        return UNKNOWN
    value = f"{100 * mean:.1f}" if score.share else f"{mean:.4g}"
    return value if std is None else f"{value} ± {deviation(score, std)}"


def known(values: Iterable[float]) -> list[float]:
    """Those that are defined."""
    return [value for value in values if not math.isnan(value)]


def named(score: Figures, value: float | None) -> str:
    """A figure for a sentence, which need not say that it is an accuracy: `macro F1 71.2%`."""
    text = figure(score, value)
    return text if score.name == ACCURACY else f"{name(score)} {text}"


def finding(run: FinishedRun) -> str:
    """What came out, in one sentence."""
    score, teachers = run.summary.headline, run.summary.teachers
    student = run.summary.student.number(score.figure)
    sentence = f"The student ends at {named(score, student)}{better(score)} on the test set"
    if teachers is None:
        return f"{sentence}."
    best = "its best teacher"
    if teachers.scored:
        many = teachers.scored > 1
        best = (
            f"the best of {teachers.scored} teachers scored" if many else "the one teacher scored"
        )
    return f"{sentence}, {above(score, student - teachers.number(score.at_best))} {best}."
