"""Compare methods, or how answers are written: one experiment in several ways, in one folder."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from fedkd import methods
from fedkd.config import Exchange, Experiment, MethodChoice, validate
from fedkd.errors import ConfigError, RunFolderError
from fedkd.federation.answers import Observer
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.runs.common import check_there

Watch = Callable[[Experiment], AbstractContextManager[Observer]]
"""Opens an observer for one run."""


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
) -> list[Path]:
    """Run a plan into `folder`, a run folder each, and return those.

    Raises:
        UsageError: an experiment or the folder will not do.
        FederationError: a federation could not go on; `resume` takes the comparison up again.
    """
    if resume:
        check_there(folder)
    elif folder.exists():
        raise RunFolderError(
            f"comparison folder {str(folder)!r} exists: "
            "go on with --resume, or name another with --out"
        )
    for run in runs:
        prepare(run)
    folders = []
    for run in runs:
        path = folder / _name(run)
        with watch(run) as observer:
            simulate(run, path, observer, resume=path.exists())
        folders.append(path)
    return folders


def _written(experiment: Experiment, form: str) -> Experiment:
    """The experiment with answers written in a form."""
    table = json.loads(experiment.to_json())
    return validate(Experiment, {**table, "exchange": Exchange.table(form)})


def _name(run: Experiment) -> str:
    """The name of a run's folder."""
    form = "" if run.exchange is None else f"-{run.exchange.name}"
    return f"{run.method.name.replace(':', '.')}{form}-seed{run.seed}"
