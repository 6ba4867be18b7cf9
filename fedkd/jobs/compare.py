"""Compare methods: the same experiment under several methods and seeds, in one folder."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from fedkd import methods
from fedkd.config import Experiment, MethodChoice
from fedkd.errors import ConfigError, RunFolderError
from fedkd.federation.answers import Observer
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.runs.common import check_there

Watch = Callable[[Experiment], AbstractContextManager[Observer]]
"""Opens an observer for one run."""


def plan(experiment: Experiment, names: Sequence[str], seeds: int) -> list[Experiment]:
    """One experiment for each method and seed, all of them checked before any runs.

    A method keeps the parameters of `[method]` where it is the one named there; others have their
    defaults. Seeds count up from the experiment's own.

    Raises:
        ConfigError: no method, an unknown one, or one that cannot run this experiment.
    """
    if not names:
        raise ConfigError("no method to compare was named: expected such as fedavg,fedmd,dense")
    runs = []
    for name in dict.fromkeys(names):
        configured = name == experiment.method.name
        choice = experiment.method if configured else MethodChoice(name=name)
        for seed in range(experiment.seed, experiment.seed + seeds):
            run = experiment.model_copy(update={"method": choice, "seed": seed})
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
        path = folder / f"{run.method.name.replace(':', '.')}-seed{run.seed}"
        with watch(run) as observer:
            simulate(run, path, observer, resume=path.exists())
        folders.append(path)
    return folders
