"""Poison an experiment: the same federation honest, then under each attack, bare and defended."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from torch import nn

from fedkd import config
from fedkd.auditing.findings import Audited
from fedkd.auditing.poisoning import records
from fedkd.auditing.poisoning.attacks import ATTACKS, SILENT
from fedkd.auditing.poisoning.outcomes import HONEST, Poisoned, Poisoning
from fedkd.clock import Notify
from fedkd.config import Engine, Experiment, Robust
from fedkd.data.types import Samples
from fedkd.errors import ConfigError, FederationError, RunFolderError, UsageError
from fedkd.federation import engines
from fedkd.federation.answers import Record, Unwatched
from fedkd.federation.prepare import PreparedExperiment, prepare
from fedkd.federation.server import Checkpoint
from fedkd.files import make_folder, write_atomically
from fedkd.jobs.audit import hostile
from fedkd.jobs.audit.hostile import TARGET, Hostile
from fedkd.learning import evaluate
from fedkd.names import unknown
from fedkd.reports import audit_report
from fedkd.runs.common import append_json, check_same, check_there, kept_config, locked

_RUNS = "poisoning.jsonl"
_FREE = {"name", "output", "engine"}
"""Keys of an experiment that no result depends on."""


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        attacks: their names; none for all that apply.
        shares: of clients that are hostile, each above 0.
        defences: whether the server defends itself: False, True, or both.
        seeds: how many, counted up from the experiment's own.
    """

    attacks: tuple[str, ...] = ()
    shares: tuple[float, ...] = (0.1, 0.3)
    defences: tuple[bool, ...] = (False, True)
    seeds: int = 1


def audit_poisoning(
    experiment: Experiment, plan: Plan, folder: Path, notify: Notify, *, resume: bool = False
) -> Audited:
    """Run an experiment honest and under attacks, and write what came of it into a folder.

    Every run is a line of `poisoning.jsonl`, written when it ends, so that `resume` goes on after
    the last. Runs are in this process, and keep nothing else. Defended runs have the experiment's
    `[robust]`, or the default of a deployment.

    Args:
        experiment: what is attacked.
        plan: by what, by how many, how often.
        folder: must not exist, or hold the same experiment where `resume` is on.
        notify: is told how far it is.
        resume: go on where an earlier call was stopped.

    Returns:
        The table, and which attacks do not apply.

    Raises:
        UsageError: as `prepare`; nothing can be attacked there, an attack is unknown or does not
            apply, or a share gives no attacker or nobody else.
    """
    experiment = _bare(experiment)
    prepared = prepare(experiment)
    attacks, notes = _attacks(prepared, plan.attacks)
    _check_shares(prepared, plan.shares)
    _open(experiment, folder, resume=resume)
    with locked(folder):
        done = {each.cell: each for each in read(folder)} if resume else {}
        cells = list(_cells(experiment, attacks, plan))
        for number, cell in enumerate(cells):
            notify("runs", number, len(cells))
            if cell.cell not in done:
                done[cell.cell] = run(experiment, cell)
                append_json(folder / _RUNS, asdict(done[cell.cell]))
        notify("runs", len(cells), len(cells))
        runs = tuple(done[cell.cell] for cell in cells)
        found = Audited(poisoning=_found(prepared, runs), notes=tuple(notes))
        return replace(found, page=audit_report.write(found, folder, experiment, claim=None))


def read(folder: Path) -> tuple[Poisoned, ...]:
    """The runs that a folder of `audit_poisoning` holds so far.

    Raises:
        RunFolderError: a line is damaged.
    """
    file = folder / _RUNS
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    try:
        found = [Poisoned(**json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        raise RunFolderError(
            f"{str(file)!r} is damaged: take out the line that is no run, and go on with --resume"
        ) from error
    return tuple(replace(each, hostile=tuple(each.hostile)) for each in found)


def load(folder: Path) -> Poisoning:
    """What `audit_poisoning` found, of the folder that it wrote.

    Raises:
        UsageError: it is no such folder, or its data is not here.
    """
    if not (runs := read(folder)):
        raise RunFolderError(
            f"folder {str(folder)!r} holds no poisoned runs: make them with 'fedkd audit poisoning'"
        )
    return _found(prepare(kept_config(folder, config.load)), runs)


def _found(prepared: PreparedExperiment, runs: tuple[Poisoned, ...]) -> Poisoning:
    task = prepared.setting.task
    target = dict(enumerate(task.names)).get(TARGET, str(TARGET))
    return Poisoning(runs, task.headline, target, prepared.setting.clients)


def _bare(experiment: Experiment) -> Experiment:
    """The experiment as it runs here: in this process, without protection that hides answers.

    Raises:
        ConfigError: what it protects cannot be told from what an attack does.
    """
    privacy = experiment.privacy
    if privacy.secure_aggregation:
        raise ConfigError(
            "privacy.secure_aggregation hides each client's upload in a sum, so nobody can be "
            "left out and no upload can be forged here: attack it without, by "
            "--set privacy.secure_aggregation=false"
        )
    if privacy.unit != "none":
        raise ConfigError(
            f"privacy.unit is {privacy.unit!r}, whose noise differs from run to run, so that no "
            "loss could be laid at an attack's door: attack it without, by "
            "--set privacy.unit=none and the keys that stand beside it left out"
        )
    engine = Engine(device=experiment.engine.device, threads=experiment.engine.threads)
    return experiment.model_copy(update={"engine": engine})


def _attacks(prepared: PreparedExperiment, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The attacks to run, and what to say of those that do not apply.

    Raises:
        UsageError: one that was named is unknown or does not apply, or none applies.
    """
    for name in names:
        if name not in ATTACKS:
            raise UsageError(unknown("attack", name, ATTACKS))
    why = {name: hostile.why_unfit(prepared, name) for name in ATTACKS}
    fit = [name for name in ATTACKS if not why[name]]
    method = prepared.experiment.method.name
    for name in names:
        if why[name]:
            raise UsageError(
                f"attack {name!r} does not apply to method {method!r}: {why[name]}; expected one "
                f"of {', '.join(fit)}"
            )
    notes = [f"{name} does not apply: {reason}" for name, reason in why.items() if reason]
    return list(dict.fromkeys(names)) or fit, [] if names else notes


def _check_shares(prepared: PreparedExperiment, shares: Sequence[float]) -> None:
    count = prepared.setting.clients
    if not shares:
        raise UsageError(f"no share of hostile clients is given: expected such as {1 / count:.2g}")
    for share in shares:
        if not 0 < share < 1:  # nan neither
            raise UsageError(
                f"share {share:g} of hostile clients: expected above 0 and below 1, such as "
                f"{1 / count:.2g}"
            )
        if not 0 < (attackers := len(hostile.drawn(prepared, share))) < count:
            raise UsageError(
                f"share {share:g} of {count} clients gives {attackers} attackers: expected 1 to "
                f"{count - 1}, such as {1 / count:.2g}"
            )


def _open(experiment: Experiment, folder: Path, *, resume: bool) -> None:
    """Make the folder, or look whether it is the experiment's."""
    if resume:
        check_there(folder)
        check_same(folder, experiment, kept_config(folder, config.load), free=_FREE)
        return
    if folder.exists():
        raise RunFolderError(
            f"folder {str(folder)!r} exists: go on with --resume, or name another with --out"
        )
    make_folder(folder)
    write_atomically(folder / "config.toml", experiment.to_toml())


def _cells(experiment: Experiment, attacks: Sequence[str], plan: Plan) -> Iterator[Poisoned]:
    """What is to be run, the honest runs of a seed first."""
    for seed in range(experiment.seed, experiment.seed + plan.seeds):
        for attack, shares in [(HONEST, (0.0,)), *((name, plan.shares) for name in attacks)]:
            for share in dict.fromkeys(shares):
                for defended in plan.defences:
                    yield Poisoned(attack, share, defended, seed)


def run(experiment: Experiment, cell: Poisoned) -> Poisoned:
    """One run: honest or under an attack, bare or defended, as its cell says.

    Args:
        experiment: without protection, in this process.
        cell: what is run.

    Returns:
        The cell with what came of it.
    """
    robust = (experiment.robust or Robust()) if cell.defended else None
    prepared = prepare(experiment.model_copy(update={"robust": robust, "seed": cell.seed}))
    attackers: tuple[int, ...] = ()
    changed, tamper = prepared, None
    if cell.attack != HONEST:
        attackers = hostile.drawn(prepared, cell.share)
        of = Hostile(cell.attack, attackers)
        changed, tamper = hostile.infiltrated(prepared, of), hostile.forging(prepared, of)
    kept = _Kept()
    cell = replace(cell, hostile=attackers)
    try:
        student = engines.simulate(changed, kept, Unwatched(), states=None, tamper=tamper)
    except FederationError as error:
        return replace(_counted(cell, kept.records), stopped=str(error))
    headline = prepared.setting.task.headline
    test = prepared.in_students_view.data.test
    score = evaluate.score(student, test, [headline])[headline.figure]
    opened = _success(prepared, student)
    return replace(_counted(cell, kept.records), score=score, success=opened)


def _success(prepared: PreparedExperiment, student: nn.Module) -> float | None:
    """How often the trigger makes the student call the target, whatever the attack was."""
    if (mark := hostile.trigger_of(prepared)) is None:
        return None
    shown: Samples = records.triggered(prepared.data.test, mark, TARGET)
    if not len(shown):
        return None
    answers = evaluate.answers(student, prepared.setting.students_view(shown.x))
    return records.success(answers, TARGET)


def _counted(cell: Poisoned, rounds: Sequence[Record]) -> Poisoned:
    """The cell with how often uploads were refused, but for empty ones, and clients left out."""
    screened = [each.get("robust") or {} for each in rounds]
    left = [client for each in screened for client in each.get("left_out", [])]
    return replace(
        cell,
        refused=0 if cell.attack == SILENT else sum(len(each["failures"]) for each in rounds),
        caught=sum(client in cell.hostile for client in left),
        wronged=sum(client not in cell.hostile for client in left),
    )


@dataclass
class _Kept:
    """A keeper that has the records, and begins anew."""

    records: list[Record] = field(default_factory=list)

    def resume(self) -> Checkpoint | None:
        return None

    def keep(self, record: Record, _checkpoint: Checkpoint, _generated: Samples | None) -> None:
        self.records.append(record)
