"""Simulate a federation on this machine: one experiment, one run folder."""

from pathlib import Path
from typing import Any

from fedkd.config import Experiment
from fedkd.federation import engines
from fedkd.federation.answers import Observer, Unwatched
from fedkd.federation.world import World, prepare
from fedkd.runs import report, shortfall
from fedkd.runs.folder import RunFolder
from fedkd.runs.summary import summarise


def simulate(
    experiment: Experiment,
    folder: Path,
    observer: Observer | None = None,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Run an experiment into a run folder, report and all.

    Args:
        experiment: what to run.
        folder: the run folder; it must not exist unless `resume` is on.
        observer: is told what happens; None: nobody is.
        resume: go on after the last finished round; from the start where there is none.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        UsageError: the experiment or the folder will not do; nothing was written.
        FederationError: the federation could not go on; the folder holds the rounds so far.
    """
    world = prepare(experiment)
    return simulate_world(world, folder, observer, resume=resume)


def simulate_world(
    world: World, folder: Path, observer: Observer | None = None, *, resume: bool = False
) -> dict[str, Any]:
    """As `simulate`, of an experiment that is prepared, its data or method perhaps changed since.

    Raises:
        UsageError: as `simulate`.
        FederationError: as `simulate`.
    """
    engines.check(world)
    run = RunFolder(folder)
    run.open(world.experiment, world.data, resume=resume)
    student = engines.simulate(world, run, observer or Unwatched(), states=run.states)
    summary = summarise(world, student, run.records(), run.released())
    run.finish(student.state_dict(), summary)
    report.write(folder)
    shortfall.of_federation(summary, world.experiment)
    return summary
