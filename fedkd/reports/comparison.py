"""Several runs side by side: each method's figures over its seeds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedkd.errors import RunFolderError
from fedkd.reports import figures
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
    own: Spread | None = None
    """The mean over clients of their own models on records of their own; None: not measured."""
    members_sent: Spread | None = None
    """How well LiRA tells members by what clients sent, an area in [0, 1]; None: not attacked."""
    members_student: Spread | None = None
    """The same by the student."""
    epsilon: float | None = None
    """The most that a run spent; None where one has no differential privacy."""


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
    own = [s.personal.number(score.mean) for s in every if s.personal is not None]
    attacked = [run.members for run in runs if run.members is not None]
    sent = [each.sent for each in attacked if each.sent is not None]
    spent = [s.privacy.epsilon for s in every if s.privacy.epsilon is not None]

    def of_all(values: Sequence[float]) -> Spread | None:
        """A mean over some of the seeds would stand beside means over all of them."""
        return spread(values) if len(values) == len(every) else None

    return ComparisonRow(
        method=method,
        seeds=tuple(s.seed for s in every),
        student=spread([s.student.number(score.figure) for s in every]),
        student_best=spread([s.student.number(score.at_best) for s in every]),
        teachers=of_all(teachers),
        ensemble=of_all(ensemble),
        bytes_up=spread([s.bytes.up for s in every]),
        bytes_down=spread([s.bytes.down for s in every]),
        seconds=spread([s.seconds for s in every]),
        score=score,
        own=of_all(own),
        members_sent=of_all(sent),
        members_student=of_all([each.student for each in attacked]),
        epsilon=max(spent) if len(spent) == len(every) else None,
    )


def spread(values: Sequence[float]) -> Spread:
    """A figure over seeds."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def further(rows: Sequence[ComparisonRow]) -> dict[str, tuple[str, ...]]:
    """The columns that not every comparison has, by heading: a text a row, `-` for what is not."""
    score = rows[0].score
    none = "-"

    def share(found: Spread | None) -> str:
        return none if found is None else figures.spread(score, found.mean, found.std)

    columns = {
        "own models": tuple(share(row.own) for row in rows),
        "LiRA, sent": tuple(_area(row.members_sent) for row in rows),
        "LiRA, student": tuple(_area(row.members_student) for row in rows),
        "epsilon": tuple(none if row.epsilon is None else f"{row.epsilon:.3g}" for row in rows),
    }
    return {name: column for name, column in columns.items() if set(column) != {none}}


def _area(found: Spread | None) -> str:
    if found is None:
        return "-"
    return f"{found.mean:.3f}" + ("" if found.std is None else f" ± {found.std:.3f}")


def differences(runs: Sequence[FinishedRun]) -> list[str]:
    """The keys in which the runs' experiments differ, beside what a comparison is meant to vary.

    Name, seed, engine, output, the method, how answers are written and epsilon may differ; a
    method's own parameters may differ between methods, not between seeds of one, and how a budget
    is spent between budgets. An epsilon for other units or at another delta is no like.
    """
    free = ("name", "seed", "engine", "output", "method", "exchange", "privacy")
    keys = _differing([_settings(run, free) for run in runs])
    for budget in {run.summary.privacy.budget for run in runs}:
        same = [run for run in runs if run.summary.privacy.budget == budget]
        keys |= _differing([{"privacy": _settings(run, ())["privacy"]} for run in same])
    budgets = [_settings(run, ())["privacy"] for run in runs if run.summary.privacy.budget]
    keys |= _differing([{"privacy": {k: of[k] for k in ("unit", "delta")}} for of in budgets])
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
