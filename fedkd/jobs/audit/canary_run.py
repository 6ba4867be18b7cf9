"""An experiment with candidates in its clients' data, and a server that keeps what it receives."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fedkd import config, rng
from fedkd.auditing import candidates as drawing
from fedkd.auditing import membership
from fedkd.auditing.candidates import Candidates, Kind
from fedkd.auditing.scores import check_task
from fedkd.config import Engine, Experiment
from fedkd.data.types import joined
from fedkd.errors import UsageError
from fedkd.federation.answers import Observer
from fedkd.federation.prepare import PreparedExperiment, prepare
from fedkd.files import write_atomically
from fedkd.jobs.audit.recording import MESSAGES, RecordingMethod, nothing_recorded
from fedkd.jobs.simulate import simulate_world
from fedkd.methods.core import protection
from fedkd.rows import concat
from fedkd.runs.common import check_code

_EXPOSURE = Path("audit") / "exposure.json"


@dataclass(frozen=True)
class Canaries:
    """Which records of each client are candidates.

    Attributes:
        candidates: of each client, half of which it learns; at most half of its records.
        kind: what they are.
    """

    candidates: int = 100
    kind: Kind = "records"


@dataclass(frozen=True)
class CanaryRun:
    """An experiment, prepared, with what an auditor knows of it."""

    prepared: PreparedExperiment
    """Its clients' data is the base and the candidates that were included."""
    candidates: dict[int, Candidates]
    public: int
    """How many of the proxy set's first inputs are no candidates."""

    def base(self, client: int) -> Tensor:
        """The indices of the client's records that are no candidates."""
        learnt = int(self.candidates[client].included.sum())
        return torch.arange(len(self.prepared.data.clients[client]) - learnt)


def plant(experiment: Experiment, exposure: Canaries) -> CanaryRun:
    """Take candidates out of each client's data, and toss for which it learns after all.

    All candidates join the proxy set, where there is one. The same experiment and exposure give the
    same candidates. It runs in this process, with ledgers of its own.

    Raises:
        UsageError: as `prepare`; a client holds too few records for any power; no attack knows the
            task; or candidates are to have labels of their own, and the task has no classes.
    """
    privacy = experiment.privacy.model_copy(update={"ledger": None})
    engine = Engine(device=experiment.engine.device)
    experiment = experiment.model_copy(update={"engine": engine, "privacy": privacy})
    prepared = prepare(experiment)
    task = prepared.setting.task
    check_task(task)
    if exposure.kind != "records" and "classes" not in task.offers:
        raise UsageError(
            f"candidates of kind {exposure.kind!r} have classes drawn for them, and task "
            f"{task.name!r} has none: expected kind 'records'"
        )
    if exposure.kind == "out-of-distribution" and len(task.vocabularies) > 1:
        raise UsageError(
            "candidates of kind 'out-of-distribution' are texts of one vocabulary, and records are "
            f"in {', '.join(task.vocabularies)}: expected kind 'records' or 'mislabelled'"
        )
    clients, chosen = [], {}
    for client, data in enumerate(prepared.data.clients):
        rest, taken = drawing.draw(
            data,
            exposure.candidates,
            exposure.kind,
            classes=prepared.data.classes,
            generator=rng.stream(experiment.seed, purpose="audit candidates", client=client),
            words=task.vocabulary,
        )
        if len(taken) < membership.FEWEST:
            raise UsageError(
                f"NO POWER: client {client} holds {len(data)} records, of which {len(taken)} can "
                f"be candidates: expected at least {membership.FEWEST}; ask for more candidates, "
                "or give the clients more data"
            )
        clients.append(joined(rest, taken.learnt))
        chosen[client] = taken
    public = prepared.data.public
    size = 0 if public is None else len(public)
    if public is not None:
        public = concat([public, *(each.samples.x for each in chosen.values())])
    federated = replace(prepared.data, clients=tuple(clients), public=public)
    # The noise anew: under the client units it depends on the size of the proxy set.
    bare = prepared.experiment.model_copy(update={"privacy": privacy})
    setting = replace(prepared.setting, experiment=bare, public=public)
    setting = protection.resolve(prepared.method, setting)
    changed = replace(prepared, experiment=setting.experiment, data=federated, setting=setting)
    return CanaryRun(changed, chosen, size)


def record(
    experiment: Experiment,
    exposure: Canaries,
    folder: Path,
    observer: Observer,
    *,
    check: Callable[[PreparedExperiment], None] = lambda _: None,
) -> None:
    """Run an experiment into a run folder, with candidates and with a server that keeps all.

    Args:
        experiment: what to run.
        exposure: which records are candidates.
        folder: the run's.
        observer: is told how far it is.
        check: looks at the prepared experiment before anything runs.

    Raises:
        UsageError: as `plant`, or the folder will not do.
        FederationError: as `simulate`.
    """
    prepared = plant(experiment, exposure).prepared
    check(prepared)
    kept = replace(prepared, method=RecordingMethod(prepared.method, folder / MESSAGES))
    simulate_world(kept, folder, observer)
    write_atomically(folder / _EXPOSURE, json.dumps(asdict(exposure)) + "\n")


def has_canaries(folder: Path) -> bool:
    """Whether `record` made the run."""
    return (folder / _EXPOSURE).is_file()


def load(folder: Path) -> CanaryRun:
    """The experiment of a run that `record` made, with its candidates.

    Raises:
        UsageError: it is no such run, or its data is not here.
    """
    experiment = config.load(folder / "config.toml")
    if not has_canaries(folder):
        raise nothing_recorded(folder)
    check_code(folder, config.specs_in(experiment), experiment.task.name, experiment.method.name)
    return plant(experiment, Canaries(**json.loads((folder / _EXPOSURE).read_text("utf-8"))))
