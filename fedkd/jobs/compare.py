"""Compare methods, or how answers are written: one experiment in several ways, in one folder."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedkd import methods
from fedkd.config import Exchange, Experiment, MethodChoice, load, validate
from fedkd.errors import ConfigError
from fedkd.jobs.audit import members
from fedkd.jobs.planned import PlannedRun, named
from fedkd.jobs.sweep import SweepOutcome, Watch, reason, run_all
from fedkd.runs.members import MEMBERS

_log = logging.getLogger(__name__)


def plan(
    experiment: Experiment, names: Sequence[str], seeds: int, forms: Sequence[str] = ()
) -> list[PlannedRun]:
    """One experiment for each method, form and seed, all of them checked before any runs.

    A method keeps the parameters of `[method]` where it is the one named there; others have their
    defaults. `fedmd+epsilon=8+sample_rate=0.25` is one with these keys of `[privacy]` in the place
    of the experiment's own. Seeds count up from the experiment's own. `forms` say how answers are
    written, as `Exchange.table` reads it, in the place of the experiment's own `[exchange]`.

    Raises:
        ConfigError: no method, an unknown one, or one that cannot run this experiment.
    """
    if not names:
        raise ConfigError("no method to compare was named: expected such as fedavg,fedmd,dense")
    ways = [_written(experiment, form) for form in dict.fromkeys(forms)] or [experiment]
    runs = []
    for word in dict.fromkeys(names):
        name, *privacy = word.split("+")
        title = named(word.replace(":", "."))
        configured = name == experiment.method.name
        choice = experiment.method if configured else MethodChoice(name=name)
        for written in ways:
            chosen = _protected(written, privacy) if privacy else written
            for seed in range(experiment.seed, experiment.seed + seeds):
                run = chosen.model_copy(update={"method": choice, "seed": seed})
                methods.resolve(run)
                form = "" if run.exchange is None else f"-{run.exchange.name}"
                settings = (f"method.name={name}", *(f"privacy.{each}" for each in privacy))
                runs.append(PlannedRun(f"{title}{form}-seed{seed}", settings, run))
    return runs


def compare(
    runs: Sequence[PlannedRun],
    folder: Path,
    watch: Watch,
    *,
    resume: bool = False,
    audit: bool = False,
) -> SweepOutcome:
    """Run a plan of methods into `folder`, a run folder each; see `sweep.run_all`.

    With `audit` each that ended is attacked, see `members.audit_members`; where that fails, the run
    has.

    Raises:
        UsageError: as `sweep.run_all`.
        BudgetError: as `sweep.run_all`.
    """
    done = run_all(runs, folder, watch, resume=resume)
    return _attacked(done, watch) if audit else done


def _attacked(done: SweepOutcome, watch: Watch) -> SweepOutcome:
    train, failed = members.shared(), {}
    for run in done.finished:
        if not isinstance(run.config, Experiment) or (done.folder / run.name / MEMBERS).exists():
            continue
        again = replace(run, name=f"{run.name}-audit")
        try:
            with watch(again) as observer:
                folders = done.folder / run.name, done.folder / again.name
                members.audit_members(run.config, *folders, observer, train)
        except Exception as error:  # noqa: BLE001 - whatever a user's own model raises
            _log.info("audit of run %s failed", run.name, exc_info=True)
            failed[run.name] = f"its audit: {reason(run, error)}"
    return replace(done, failed={**done.failed, **failed})


def _written(experiment: Experiment, form: str) -> Experiment:
    """The experiment with answers written in a form."""
    table = json.loads(experiment.to_json())
    return validate(Experiment, {**table, "exchange": Exchange.table(form)})


def _protected(experiment: Experiment, words: Sequence[str]) -> Experiment:
    """The experiment with keys of `[privacy]`, each `key=value`, beside what it has there.

    A budget that is shared by a ledger stays so, and so does what delta is held against.
    """
    own = experiment.privacy.model_dump(mode="json", exclude_defaults=True)
    table = {**json.loads(experiment.to_json()), "privacy": own}
    return load(table, [f"privacy.{word}" for word in words])
