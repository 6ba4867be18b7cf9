"""Simulate a federation on this machine: one experiment, one run folder."""

from collections.abc import Callable, Collection
from pathlib import Path
from threading import Thread
from typing import Any

from torch import nn

from fedkd.config import Experiment
from fedkd.federation import engines
from fedkd.federation.answers import Observer, Together, Unwatched
from fedkd.federation.asynchronous.arrivals import Script
from fedkd.federation.prepare import PreparedExperiment, prepare
from fedkd.federation.tampering import Tamper
from fedkd.jobs import replay as replaying
from fedkd.privacy.ledger import Anchor, Ledger
from fedkd.reports import shortfall
from fedkd.runs import examples, tokenizers
from fedkd.runs.common import locked, resumable
from fedkd.runs.folder import RunFolder
from fedkd.runs.manifest import check_ledger
from fedkd.runs.summary import summarise
from fedkd.runs.under_way.live import LiveWriter
from fedkd.tracking import following
from fedkd.tracking.following import tracked
from fedkd.tracking.rounds import RoundsTold

_TEACHERS_SHOWN = 2


def simulate(
    experiment: Experiment,
    folder: Path,
    observer: Observer | None = None,
    *,
    resume: bool = False,
    replay: Path | None = None,
) -> dict[str, Any]:
    """Run an experiment into a run folder, report and all.

    Args:
        experiment: what to run.
        folder: the run folder; it must exist if `resume` is on, and must not otherwise.
        observer: is told what happens; None: nobody is.
        resume: go on after the last finished round, or for more rounds than a finished run had.
        replay: the folder of a finished asynchronous run, simulated or deployed, of the same
            experiment on the same data, whose clients answer in the order that they had there.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        UsageError: the experiment or the folder will not do; nothing was written.
        FederationError: the federation could not go on; the folder holds the rounds so far. Or
            what was replayed has led to another student.
        StorageError: the disk did not take or give a file; the folder holds the rounds before.
    """
    if replay is None:
        return simulate_world(prepare(experiment), folder, observer, resume=resume)
    prepared = prepare(replaying.as_there(replay, experiment))
    script = replaying.script(replay, prepared.experiment)
    summary = simulate_world(prepared, folder, observer, resume=resume, script=script)
    replaying.check_student(replay, folder)
    return summary


def simulate_world(
    prepared: PreparedExperiment,
    folder: Path,
    observer: Observer | None = None,
    *,
    resume: bool = False,
    teachers: Collection[int] = (),
    tamper: Tamper | None = None,
    script: Script | None = None,
) -> dict[str, Any]:
    """As `simulate`, of an experiment that is prepared, its data or method perhaps changed since.

    Args:
        prepared: the experiment.
        folder: as of `simulate`.
        observer: as of `simulate`.
        resume: as of `simulate`.
        teachers: clients whose own models are read afterwards, by `engines.teacher`.
        tamper: what hostile clients send in place of their own answers; None: nobody is hostile.
        script: who answers when, where rounds are asynchronous; None: as the experiment has it.

    Raises:
        UsageError: as `simulate`.
        FederationError: as `simulate`.
    """
    engines.check(prepared)
    following.check(prepared.experiment)
    run = RunFolder(folder)
    if not resume:
        for ledger in engines.client_ledgers(prepared.experiment.privacy, run.states):
            Ledger(ledger)  # looks at every byte of it, before anything is written
    with resumable(folder):
        run.open(
            prepared.experiment, prepared.data, resume=resume, devices=prepared.setting.devices
        )
        with (
            locked(folder),
            LiveWriter(folder, prepared.setting.task.headline) as live,
            tracked(prepared.experiment, folder) as look,
        ):
            if resume:
                _check_ledgers(prepared, run)
            if prepared.experiment.engine.kind == "in-process":  # the others start processes
                Thread(target=_drawer).start()
            student = engines.simulate(
                prepared,
                run,
                Together(observer or Unwatched(), live, RoundsTold(look)),
                states=run.states,
                teachers={*range(_TEACHERS_SHOWN), *teachers},
                tamper=tamper,
                script=script,
            )
            summary = summarise(prepared, student, run.records(), run.released())
            tokenizers.keep(folder, prepared.in_students_view.data.tokenizers)
            run.finish(student.state_dict(), summary)
            _keep_examples(prepared, student, run)
            _drawer()(folder)
            shortfall.of_federation(summary, prepared.experiment)
    return summary


def _drawer() -> Callable[[Path], Path]:
    """What draws the report: half a second to import, so that is done late, or meanwhile."""
    from fedkd.reports import report

    return report.write


def _keep_examples(prepared: PreparedExperiment, student: nn.Module, run: RunFolder) -> None:
    """What the student answers and, where their scores are told too, some clients' teachers.

    Teachers who see something else than the student are left out.
    """
    asked, told = {}, prepared.experiment.privacy.unit in ("none", "record")
    if told and not prepared.experiment.unlike_views:
        for client in range(min(_TEACHERS_SHOWN, prepared.setting.clients)):
            if (teacher := engines.teacher(prepared, run.states, client)) is not None:
                asked[f"Teacher of client {client}"] = teacher
    seen = prepared.in_students_view
    examples.write(run.path, seen.setting.task, seen.data.test, {**asked, "Student": student})


def _check_ledgers(prepared: PreparedExperiment, run: RunFolder) -> None:
    """Refuse ledgers that are not the ones which the run spent from.

    Raises:
        RunFolderError: names the first that is missing, damaged, another one or an older copy.
    """
    privacy, last = prepared.experiment.privacy, run.last()
    seen: dict[Path, list[Anchor]] = {}
    for ledger in engines.client_ledgers(privacy, run.states):
        seen[ledger] = []
    server = engines.server_ledger(privacy, run.states)
    if server.exists():
        seen[server] = []
    if last is not None:
        ledger_heads = [
            (engines.client_ledger(privacy, run.states, client), at)
            for client, at in last.ledger_heads.items()
        ]
        ledger_heads += [] if last.server_head is None else [(server, last.server_head)]
        for ledger, at in ledger_heads:
            seen.setdefault(ledger, []).append(Anchor(at.sequence, at.head))
    for ledger, heads in seen.items():
        check_ledger(run.path, ledger, heads)
