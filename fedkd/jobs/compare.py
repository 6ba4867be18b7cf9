"""Compare methods, or how answers are written: one experiment in several ways, in one folder."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedkd import methods
from fedkd.config import Exchange, Experiment, MethodChoice, load, validate
from fedkd.errors import ConfigError, FedkdError
from fedkd.jobs.audit import members
from fedkd.jobs.planned import PlannedRun
from fedkd.jobs.sweep import SweepOutcome, Watch, run_all
from fedkd.runs.members import MEMBERS

_log = logging.getLogger(__name__)


def plan(
    experiment: Experiment, names: Sequence[str], seeds: int, forms: Sequence[str] = ()
) -> list[Experiment]:
    """One experiment for each method, form and seed, all of them checked before any runs.

    A method keeps the parameters of `[method]` where it is the one named there; others have their
    defaults. `fedmd+epsilon=8+sample_rate=0.25` is one under these keys of `[privacy]`, whatever
    the experiment has there. Seeds count up from the experiment's own. `forms` say how answers are
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
        configured = name == experiment.method.name
        choice = experiment.method if configured else MethodChoice(name=name)
        for written in ways:
            chosen = _protected(written, privacy) if privacy else written
            for seed in range(experiment.seed, experiment.seed + seeds):
                run = chosen.model_copy(update={"method": choice, "seed": seed})
                methods.resolve(run)
                runs.append(run)
    return runs


def compare(
    runs: Sequence[Experiment],
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
    planned = [PlannedRun(_name(run), (f"method.name={run.method.name}",), run) for run in runs]
    done = run_all(planned, folder, watch, resume=resume)
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
        except FedkdError as error:
            _log.info("audit of run %s failed", run.name, exc_info=True)
            failed[run.name] = f"its audit: {error}"
    return replace(done, failed={**done.failed, **failed})


def _written(experiment: Experiment, form: str) -> Experiment:
    """The experiment with answers written in a form."""
    table = json.loads(experiment.to_json())
    return validate(Experiment, {**table, "exchange": Exchange.table(form)})


def _protected(experiment: Experiment, words: Sequence[str]) -> Experiment:
    """The experiment under keys of `[privacy]`, each `key=value`."""
    bare = {**json.loads(experiment.to_json()), "privacy": {}}
    return load(bare, [f"privacy.{word}" for word in words])


def _name(run: Experiment) -> str:
    """The name of a run's folder."""
    form = "" if run.exchange is None else f"-{run.exchange.name}"
    given = run.privacy.model_dump(exclude_defaults=True, exclude={"unit"})
    private = "".join(f"+{key}={value}" for key, value in given.items())
    return f"{run.method.name.replace(':', '.')}{private}{form}-seed{run.seed}"
