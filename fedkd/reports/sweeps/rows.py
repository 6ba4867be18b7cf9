"""A sweep's runs as rows: each combination's figures over its seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import norm

from fedkd.errors import RunFolderError
from fedkd.reports.comparison import Spread, spread
from fedkd.runs import distil_schema, reading
from fedkd.runs.schema import PrivacySummary
from fedkd.runs.scores import ShownScore
from fedkd.runs.student import is_distillation

Settings = Mapping[str, str]
"""What a combination sets: values by key, as they were written."""


@dataclass(frozen=True)
class SweptRun:
    """A finished run of a sweep, federation or distillation alike."""

    path: Path
    settings: Settings
    seed: int
    score: ShownScore
    student: float
    """The headline score after the last round, or at the end of the way."""
    beside: Mapping[str, float]
    """What it may be held against, in the same score: the teachers' mean, or the student alone."""
    up: int | None
    """Bytes that the clients sent; None of a distillation."""
    seconds: float
    privacy: PrivacySummary


@dataclass(frozen=True)
class SweepRow:
    """A combination over its seeds."""

    settings: Settings
    runs: tuple[SweptRun, ...]
    student: Spread
    beside: Mapping[str, Spread]
    up: Spread | None
    seconds: Spread


def read(path: Path, settings: Settings) -> SweptRun:
    """Read a finished run's folder.

    Raises:
        RunFolderError: the run is unfinished, or a file is missing or corrupt.
    """
    if is_distillation(path):
        alone = distil_schema.read(path).summary
        score, plain = alone.headline, alone.plain
        beside = {} if plain is None else {"student alone": plain}
        return SweptRun(
            path, settings, alone.seed, score, alone.student.number(score.figure), beside, None,
            alone.seconds, alone.privacy,
        )  # fmt: skip
    summary = reading.read(path).summary
    score, teachers = summary.headline, summary.teachers
    beside = {} if teachers is None else {"teachers": teachers.number(score.mean)}
    return SweptRun(
        path, settings, summary.seed, score, summary.student.number(score.figure), beside,
        summary.bytes.up, summary.seconds, summary.privacy,
    )  # fmt: skip


def rows(runs: Sequence[SweptRun]) -> list[SweepRow]:
    """A row for each combination, the highest mean first; of a score that should be low the lowest.

    Raises:
        RunFolderError: the runs have different scores, or there is none.
    """
    if not runs:
        raise RunFolderError("no run of the sweep came to its end: nothing can be compared")
    score = runs[0].score
    if other := next((run for run in runs if run.score != score), None):
        raise RunFolderError(
            f"run folder {str(runs[0].path)!r} is scored by {score.name}, {str(other.path)!r} by "
            f"{other.score.name}: name the same score first in task.scores"
        )
    groups: dict[tuple[tuple[str, str], ...], list[SweptRun]] = {}
    for run in runs:
        groups.setdefault(tuple(run.settings.items()), []).append(run)
    found = [_row(group) for group in groups.values()]
    sign = -1 if score.higher else 1
    # What is not defined is last, whichever way is up.
    return sorted(found, key=lambda row: (math.isnan(row.student.mean), sign * row.student.mean))


def luck(found: Sequence[SweepRow]) -> float | None:
    """By how much the first row's mean would be above all rows' mean if all were equally good.

    The expected largest of so many means over seeds, which differ by chance alone (Blom 1958), by
    the deviation between seeds of one combination, pooled. None where it cannot be told: a single
    row, or one seed each.
    """
    spreads = [(row.student.std, len(row.runs)) for row in found if row.student.std is not None]
    known = [(std, count) for std, count in spreads if not math.isnan(std)]
    if len(found) < 2 or not known:
        return None
    freedom = sum(count - 1 for _, count in known)
    variance = sum(std**2 * (count - 1) for std, count in known) / freedom
    seeds = statistics.fmean(len(row.runs) for row in found)
    largest = norm.ppf((len(found) - 0.375) / (len(found) + 0.25))
    return float(largest * math.sqrt(variance / seeds))


def _row(runs: Sequence[SweptRun]) -> SweepRow:
    names = dict.fromkeys(name for run in runs for name in run.beside)
    sent = [run.up for run in runs if run.up is not None]
    return SweepRow(
        settings=runs[0].settings,
        runs=tuple(sorted(runs, key=lambda run: run.seed)),
        student=spread([run.student for run in runs]),
        # A mean over some of the seeds would stand beside means over all of them.
        beside={
            name: spread([run.beside[name] for run in runs])
            for name in names
            if all(name in run.beside for run in runs)
        },
        up=spread(sent) if len(sent) == len(runs) else None,
        seconds=spread([run.seconds for run in runs]),
    )
