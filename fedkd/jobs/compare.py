"""Compare methods, or how answers are written: one experiment in several ways, in one folder."""

import json
from collections.abc import Sequence
from pathlib import Path

from fedkd import methods
from fedkd.config import Exchange, Experiment, MethodChoice, validate
from fedkd.errors import ConfigError
from fedkd.jobs.planned import PlannedRun
from fedkd.jobs.sweep import SweepOutcome, Watch, run_all


def plan(
    experiment: Experiment, names: Sequence[str], seeds: int, forms: Sequence[str] = ()
) -> list[Experiment]:
    """One experiment for each method, form and seed, all of them checked before any runs.

    A method keeps the parameters of `[method]` where it is the one named there; others have their
    defaults. Seeds count up from the experiment's own. `forms` say how answers are written, as
    `Exchange.table` reads it, in the place of the experiment's own `[exchange]`.

    Raises:
        ConfigError: no method, an unknown one, or one that cannot run this experiment.
    """
    if not names:
        raise ConfigError("no method to compare was named: expected such as fedavg,fedmd,dense")
    ways = [_written(experiment, form) for form in dict.fromkeys(forms)] or [experiment]
    runs = []
    for name in dict.fromkeys(names):
        configured = name == experiment.method.name
        choice = experiment.method if configured else MethodChoice(name=name)
        for written in ways:
            for seed in range(experiment.seed, experiment.seed + seeds):
                run = written.model_copy(update={"method": choice, "seed": seed})
                methods.resolve(run)
                runs.append(run)
    return runs


def compare(
    runs: Sequence[Experiment], folder: Path, watch: Watch, *, resume: bool = False
) -> SweepOutcome:
    """Run a plan of methods into `folder`, a run folder each; see `sweep.run_all`.

    Raises:
        UsageError: as `sweep.run_all`.
        BudgetError: as `sweep.run_all`.
    """
    planned = [PlannedRun(_name(run), (f"method.name={run.method.name}",), run) for run in runs]
    return run_all(planned, folder, watch, resume=resume)


def _written(experiment: Experiment, form: str) -> Experiment:
    """The experiment with answers written in a form."""
    table = json.loads(experiment.to_json())
    return validate(Experiment, {**table, "exchange": Exchange.table(form)})


def _name(run: Experiment) -> str:
    """The name of a run's folder."""
    form = "" if run.exchange is None else f"-{run.exchange.name}"
    return f"{run.method.name.replace(':', '.')}{form}-seed{run.seed}"
