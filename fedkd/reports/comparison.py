"""Several runs side by side: each method's figures over its seeds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedkd.errors import RunFolderError
from fedkd.runs.reading import read
from fedkd.runs.schema import FinishedRun
from fedkd.runs.scores import ACCURACY_ALONE, ShownScore


@dataclass(frozen=True)
class Spread:
    """A figure over seeds: its mean, and its sample standard deviation (None for a single seed)."""

    mean: float
    std: float | None


@dataclass(frozen=True)
class ComparisonRow:
    """A method over its seeds; the headline score of the last round but for `student_best`."""

    method: str
    seeds: tuple[int, ...]
    student: Spread
    student_best: Spread
    teachers: Spread | None
    ensemble: Spread | None
    bytes_up: Spread
    bytes_down: Spread
    seconds: Spread
    score: ShownScore = ACCURACY_ALONE[0]
    """What the runs are compared by."""


def comparison_table(runs: Sequence[Path]) -> list[ComparisonRow]:
    """The runs' figures by method, the best student first.

    Args:
        runs: run folders; runs of one method are taken as its seeds.

    Raises:
        RunFolderError: no run was given, or a folder is no finished run.
    """
    return compare([read(path) for path in runs])


def compare(runs: Sequence[FinishedRun]) -> list[ComparisonRow]:
    """`comparison_table` of runs that were read already."""
    if not runs:
        raise RunFolderError("no run folder was given: a comparison needs at least one")
    folders = [run.path.resolve() for run in runs]
    if twice := next((f for f in folders if folders.count(f) > 1), None):
        raise RunFolderError(f"run folder {str(twice)!r} was given twice: a run is one seed")
    score = headline(runs)
    rows = [_row(method, method_runs, score) for method, method_runs in by_method(runs).items()]
    sign = -1 if score.higher else 1
    return sorted(rows, key=lambda row: (sign * row.student.mean, row.method))


def headline(runs: Sequence[FinishedRun]) -> ShownScore:
    """The score that runs are compared by.

    Raises:
        RunFolderError: they have different ones.
    """
    first, *others = runs
    score = first.summary.headline
    if other := next((run for run in others if run.summary.headline != score), None):
        raise RunFolderError(
            f"run folder {str(first.path)!r} is scored by {score.name}, {str(other.path)!r} by "
            f"{other.summary.headline.name}: name the same score first in task.scores"
        )
    return score


def by_method(runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """The runs of each method, by seed; another budget, or form of answers, is another row."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in sorted(runs, key=lambda run: run.summary.seed):
        budget = run.summary.privacy.budget
        private = "" if budget is None else f", epsilon {budget:g}"
        how = run.experiment.exchange
        form = "" if how is None else f", {how.name}"
        groups.setdefault(run.summary.method + form + private, []).append(run)
    return groups


def _row(method: str, runs: Sequence[FinishedRun], score: ShownScore) -> ComparisonRow:
    every = [run.summary for run in runs]
    teachers = [s.teachers.number(score.mean) for s in every if s.teachers is not None]
    ensemble = [s.ensemble.number(score.figure) for s in every if s.ensemble is not None]
    return ComparisonRow(
        method=method,
        seeds=tuple(s.seed for s in every),
        student=spread([s.student.number(score.figure) for s in every]),
        student_best=spread([s.student.number(score.at_best) for s in every]),
        # A mean over some of the seeds would stand beside means over all of them.
        teachers=spread(teachers) if len(teachers) == len(every) else None,
        ensemble=spread(ensemble) if len(ensemble) == len(every) else None,
        bytes_up=spread([s.bytes.up for s in every]),
        bytes_down=spread([s.bytes.down for s in every]),
        seconds=spread([s.seconds for s in every]),
        score=score,
    )


def spread(values: Sequence[float]) -> Spread:
    """A figure over seeds."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def differences(runs: Sequence[FinishedRun]) -> list[str]:
    """The keys in which the runs' experiments differ, beside what a comparison is meant to vary.

    Name, seed, engine, output, the method and how answers are written may differ; a method's own
    parameters may differ between methods, not between seeds of one.
    """
    keys = _differing(
        [_settings(run, ("name", "seed", "engine", "output", "method", "exchange")) for run in runs]
    )
    for method_runs in by_method(runs).values():
        keys |= _differing([{"method": run.experiment.method.parameters} for run in method_runs])
    return sorted(keys)


def _settings(run: FinishedRun, without: Sequence[str]) -> dict[str, Any]:
    table = run.experiment.model_dump(mode="json")
    # Methods with other plans need other noise for one and the same budget.
    table["privacy"].pop("noise_multiplier")
    return {key: value for key, value in table.items() if key not in without}


def _differing(tables: Sequence[dict[str, Any]]) -> set[str]:
    flat = [_flat(table) for table in tables]
    every = {key for table in flat for key in table}
    return {key for key in every if any(t.get(key) != flat[0].get(key) for t in flat)}


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in table.items():
        values |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return values
