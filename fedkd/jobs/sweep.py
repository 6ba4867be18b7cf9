"""Sweep: one configuration over a grid of values and over seeds, a run folder each, in one folder.

What runs several configurations in a row is here; `compare` is a plan of methods, and runs by it.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fedkd import config
from fedkd.config import Distillation
from fedkd.errors import ConfigError, FedkdError, RunFolderError
from fedkd.federation import engines
from fedkd.federation.answers import Unwatched
from fedkd.federation.prepare import prepare
from fedkd.federation.workers import cluster
from fedkd.files import make_folder
from fedkd.jobs.planned import Configuration, PlannedRun
from fedkd.jobs.simulate import simulate
from fedkd.reports.sweeps import page, rows, spending
from fedkd.reports.sweeps.rows import SweepRow
from fedkd.reports.sweeps.spending import SweepSpending
from fedkd.runs.common import check_there, differing, locked
from fedkd.threads import cores
from fedkd.tracking import following

_log = logging.getLogger(__name__)

Where = Literal["here", "ray"]
Watch = Callable[[PlannedRun], AbstractContextManager[Any]]
"""Opens what is told of one run: an `Observer` of a federation, a `Notify` of a distillation."""


@dataclass(frozen=True)
class SweepOutcome:
    """What became of several runs."""

    folder: Path
    runs: tuple[PlannedRun, ...]
    failed: Mapping[str, str]
    """Why, by the run's name."""

    @property
    def finished(self) -> list[PlannedRun]:
        """Those that came to their end, in the plan's order."""
        return [run for run in self.runs if run.name not in self.failed]

    @property
    def folders(self) -> list[Path]:
        """Their folders."""
        return [self.folder / run.name for run in self.finished]

    def require_all(self) -> None:
        """Complain of runs that failed, in one line.

        Raises:
            FedkdError: names each with its reason.
        """
        if self.failed:
            each = "; ".join(f"{name}: {reason}" for name, reason in self.failed.items())
            raise FedkdError(
                f"{len(self.failed)} of {len(self.runs)} runs failed, and --resume tries them "
                f"again: {each}"
            )


def run_all(
    runs: Sequence[PlannedRun],
    folder: Path,
    watch: Watch,
    *,
    resume: bool = False,
    where: Where = "here",
    on_end: Callable[[PlannedRun, str], None] = lambda _run, _why: None,
) -> SweepOutcome:
    """Run a plan into `folder`, a run folder each. One that fails is named, and the others go on.

    Args:
        runs: all are checked before any runs.
        folder: for all of them; it must exist if `resume` is on, and must not otherwise.
        watch: is opened for each run in turn; on Ray nobody watches.
        resume: leave finished runs as they are, go on in those that were begun, start the rest.
        where: in turn, in this process, or side by side on Ray: on the cluster that `RAY_ADDRESS`
            names, which must see `folder` by the same path, or on this machine. There a run takes
            as many cores as `engine.threads` says.
        on_end: is told each run that ended, and why it failed, nothing if it did not.

    Raises:
        UsageError: a run of the plan or the folder will not do; nothing was run.
        BudgetError: a run as planned costs more than the budget that it names.
    """
    if resume:
        check_there(folder)
    elif folder.exists():
        raise RunFolderError(
            f"folder {str(folder)!r} exists: go on with --resume, or name another with --out"
        )
    complete = _checked(runs, where)
    _warn_of_cost(runs)
    make_folder(folder)
    with locked(folder):
        left = [run for run in runs if not _finished(complete[run.name], folder / run.name)]
        attempts = _in_turn if where == "here" else _on_ray
        why: dict[str, str] = {}
        for run, failure in attempts(left, folder.resolve(), watch):
            why[run.name] = failure
            on_end(run, failure)
    failed = {run.name: why[run.name] for run in left if why[run.name]}
    return SweepOutcome(folder, tuple(runs), failed)


def report(done: SweepOutcome) -> tuple[list[SweepRow], SweepSpending]:
    """Write the page beside the runs; a row for each combination, and what all runs spent.

    Raises:
        RunFolderError: no run came to its end, or one was damaged since.
    """
    found = rows.rows([rows.read(done.folder / run.name, run.values) for run in done.finished])
    spent = spending.spent([done.folder / run.name for run in done.runs])
    page.write(found, done.failed, spent, done.folder / "report.html")
    return found, spent


def _in_turn(
    runs: Sequence[PlannedRun], folder: Path, watch: Watch
) -> Iterator[tuple[PlannedRun, str]]:
    return ((run, _attempt(run, folder, watch)) for run in runs)


def _on_ray(
    runs: Sequence[PlannedRun], folder: Path, _watch: Watch
) -> Iterator[tuple[PlannedRun, str]]:
    tasks = [
        cluster.ClusterTask(
            partial(_attempt, run, folder, _unwatched), _cores(run), _on_accelerator(run)
        )
        for run in runs
    ]
    return ((runs[number], why) for number, why in cluster.each(tasks))


def _attempt(run: PlannedRun, folder: Path, watch: Watch) -> str:
    """Run one; why it failed, nothing if it did not."""
    path = folder / run.name
    try:
        with watch(run) as told:
            if isinstance(run.config, Distillation):
                from fedkd.jobs.distil import distil

                distil(run.config, path, told, resume=path.exists())
            else:
                simulate(run.config, path, told, resume=path.exists())
    except Exception as error:  # noqa: BLE001 - whatever a user's own model raises, the others go on
        _log.info("run %s failed", run.name, exc_info=True)
        return reason(run, error)
    return ""


def reason(run: PlannedRun, error: Exception) -> str:
    """Why a run failed, in one line; of a private one a library's words may quote a record."""
    if isinstance(error, FedkdError):
        said = str(error)
    else:
        said = type(error).__name__ + ("" if _is_private(run) else f": {error}")
    return said.replace("\n", " ")


def _unwatched(run: PlannedRun) -> AbstractContextManager[Any]:
    return nullcontext(_look_away if isinstance(run.config, Distillation) else Unwatched())


def _look_away(_phase: str, _done: int, _total: int) -> None:
    pass


def _checked(runs: Sequence[PlannedRun], where: Where) -> dict[str, Configuration]:
    """Each run's configuration as its folder will have it, by the run's name.

    Raises:
        UsageError: one of them cannot run, or they are not scored alike.
        BudgetError: one costs more than its budget.
    """
    if where == "ray":
        cluster.check()
    complete: dict[str, Configuration] = {}
    headlines: dict[str, str] = {}
    for run in runs:
        try:
            complete[run.name], headline = _prepared(run.config, where)
        except FedkdError as error:
            raise type(error)(f"run {run.name}: {error}") from error
        headlines.setdefault(headline, run.name)
    if len(headlines) > 1:
        (score, one), (other, another) = list(headlines.items())[:2]
        raise ConfigError(
            f"run {one} is scored by {score}, {another} by {other}: name the same score first in "
            "task.scores, so that they can be compared"
        )
    return complete


def _prepared(asked: Configuration, where: Where) -> tuple[Configuration, str]:
    """A configuration complete, and by what it is scored."""
    following.check(asked)
    if isinstance(asked, Distillation):
        from fedkd.learning.ways.prepare import prepare as ready

        made = ready(asked)
        return made.distillation, made.task.headline.name
    if where == "ray" and asked.engine.kind != "in-process":
        raise ConfigError(
            f"engine.kind is {asked.engine.kind!r}, and runs are to be spread on Ray: leave out "
            "engine.kind, or run in turn"
        )
    prepared = prepare(asked)
    engines.check(prepared)
    return prepared.experiment, prepared.setting.task.headline.name


def _finished(complete: Configuration, path: Path) -> bool:
    """Whether a run ended in its folder, report and all, and was of this configuration."""
    if not all((path / name).exists() for name in ("summary.json", "report.html", "config.toml")):
        return False
    try:
        kept = config.load_either(path / "config.toml")
    except ConfigError:
        return False  # going on in it says what is wrong
    return type(kept) is type(complete) and not differing(complete, kept, free={"engine", "output"})


def _is_private(run: PlannedRun) -> bool:
    return run.config.privacy is not None and run.config.privacy.epsilon is not None


def _warn_of_cost(runs: Sequence[PlannedRun]) -> None:
    """Say what choosing among private runs costs: all of them are releases of the same data."""
    private = [p for run in runs if (p := run.config.privacy) is not None and p.epsilon is not None]
    if len(private) < 2:
        return
    own = [each for each in private if each.ledger is None]
    if own:
        _log.warning(
            "%d runs are as many releases of the same data: each keeps a ledger of its own, so "
            "together they may spend epsilon %.4g at delta %.3g, the sum of their budgets, and "
            "whoever chooses among them has seen all; privacy.ledger holds them to one budget",
            len(own), sum(each.epsilon or 0 for each in own), sum(each.delta for each in own),
        )  # fmt: skip
    for ledger in dict.fromkeys(each.ledger for each in private if each.ledger is not None):
        _log.warning(
            "%d runs spend from the ledger in %r: one that its budget no longer allows is refused, "
            "and the others go on",
            sum(each.ledger == ledger for each in private), ledger,
        )  # fmt: skip


def _cores(run: PlannedRun) -> int:
    threads = 1 if isinstance(run.config, Distillation) else run.config.engine.threads
    return threads or cores()


def _on_accelerator(run: PlannedRun) -> bool:
    return run.config.engine.device.startswith("cuda")
