"""Engines: where a simulation runs its clients. Each gives the same student."""

import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from torch import nn

from fedkd.config import Privacy
from fedkd.devices import CPU
from fedkd.errors import ConfigError
from fedkd.exchange.messages import group
from fedkd.federation import compat
from fedkd.federation.answers import Observer
from fedkd.federation.asynchronous.arrivals import Script
from fedkd.federation.checking import App, checked, looking
from fedkd.federation.client import ACTION, WATCHER, ClientParty, client_app
from fedkd.federation.inprocess import InProcessGrid
from fedkd.federation.prepare import PreparedExperiment, prepare_json
from fedkd.federation.rounds import federate
from fedkd.federation.server import Keeper
from fedkd.federation.spending import no_ledger
from fedkd.federation.state import MemoryState, rounds_back
from fedkd.federation.store.state_store import StateStore, of_process
from fedkd.federation.store.stored_state import StoredState
from fedkd.federation.tampering import Tamper
from fedkd.federation.wire import Call
from fedkd.federation.workers.app import WorkerProcesses
from fedkd.privacy import shared
from fedkd.privacy.chain import beside
from fedkd.privacy.ledger import Ledger
from fedkd.threads import cores, one_intra_op_thread, tune_allocator

_LEDGER = "ledger.db"


def check(prepared: PreparedExperiment) -> None:
    """Refuse an engine that is not installed or has no devices, and a folder that holds no ledger.

    Raises:
        ConfigError: with the remedy.
    """
    if prepared.experiment.engine.kind == "ray" and importlib.util.find_spec("ray") is None:
        raise ConfigError("engine.kind is 'ray', which is not installed: pip install 'fedkd[ray]'")
    if prepared.experiment.engine.kind == "ray" and prepared.setting.devices != (CPU,):
        raise ConfigError(
            f"engine.device is {prepared.experiment.engine.device!r} and engine.kind is 'ray', "
            "which hides devices from its workers: leave out engine.kind, since clients in this "
            "process share devices anyway"
        )
    if prepared.experiment.engine.kind == "processes":
        _check_forks(prepared)
    if (folder := prepared.experiment.privacy.ledger) is not None:
        shared.check(Path(folder))
        _check_writable(Path(folder))


def _check_forks(prepared: PreparedExperiment) -> None:
    if sys.platform != "linux":
        raise ConfigError(
            "engine.kind is 'processes', which forks this process, and that is safe on Linux "
            f"alone: this is {sys.platform!r}, so leave out engine.kind, or take 'ray'"
        )
    if prepared.setting.devices != (CPU,):
        raise ConfigError(
            f"engine.device is {prepared.experiment.engine.device!r} and engine.kind is "
            "'processes', whose workers are forks, which no accelerator can be used in: leave out "
            "engine.kind, since clients in this process share devices anyway"
        )
    if torch.accelerator.is_available():
        raise ConfigError(
            "engine.kind is 'processes' and torch finds an accelerator, for which it starts "
            "threads that no fork has, so that forks can compute no gradients: hide it, as by "
            "CUDA_VISIBLE_DEVICES= before the command, or leave out engine.kind"
        )


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"privacy.ledger is {str(folder)!r}: {error.strerror}; expected a folder that can be "
            "written, or leave it out"
        ) from error


def simulate(
    prepared: PreparedExperiment,
    keeper: Keeper,
    observer: Observer,
    *,
    states: Path | None,
    teachers: Collection[int] = (),
    tamper: Tamper | None = None,
    script: Script | None = None,
) -> nn.Module:
    """Run an experiment on this machine, on the engine that it names.

    Args:
        prepared: the experiment, prepared.
        keeper: keeps finished rounds.
        observer: is told what happens.
        states: the folder in which each client keeps its state, so that a run can resume; None
            keeps it until the end, in memory or a folder of its own; on Ray there must be one.
        teachers: the clients whose teachers are read when the run has ended, by `teacher`; of the
            others they are kept where a later round goes on from them.
        tamper: as of `federate`.
        script: as of `federate`.

    Returns:
        The student.

    Raises:
        FederationError: as `federate`.
    """
    privacy = prepared.experiment.privacy
    threads = prepared.experiment.engine.threads or cores()
    engines = {"in-process": _in_process, "processes": _in_processes, "ray": _on_ray}
    engine = engines[prepared.experiment.engine.kind]
    tune_allocator()
    with one_intra_op_thread():
        rounds = partial(
            federate,
            prepared=prepared,
            keeper=keeper,
            observer=observer,
            threads=threads,
            ledger=partial(Ledger, server_ledger(privacy, states)) if states else no_ledger,
            tamper=tamper,
            script=script,
        )
        token = WATCHER.set(observer.client_does)
        try:
            return engine(prepared, states, threads, rounds, frozenset(teachers))
        finally:
            WATCHER.reset(token)


def _in_process(
    prepared: PreparedExperiment,
    states: Path | None,
    threads: int,
    rounds: Callable[..., nn.Module],
    teachers: frozenset[int],
) -> nn.Module:
    back = rounds_back(prepared.experiment)
    with ExitStack() as stack:
        if states is None:
            memories = [MemoryState(back=back) for _ in prepared.data.clients]
            parties = [ClientParty(prepared, each, shows_teacher=False) for each in memories]
        else:
            store = stack.enter_context(StateStore(states, back=back, shared=False))

        def find(_context: Context, call: Call) -> ClientParty:
            return (
                _on_disk(prepared, store, teachers, call.client) if states else parties[call.client]
            )

        app = _looked_at(client_app(find, simulated=True), prepared)
        grid = InProcessGrid(app, nodes=prepared.setting.clients, threads=threads)
        return rounds(stack.enter_context(grid))


def _in_processes(
    prepared: PreparedExperiment,
    states: Path | None,
    threads: int,
    rounds: Callable[..., nn.Module],
    teachers: frozenset[int],
) -> nn.Module:
    with ExitStack() as stack:
        place = states or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedkd-")))

        def find(_context: Context, call: Call) -> ClientParty:
            party = _of_worker(prepared, place, teachers, call.client)
            return party if states else replace(party, ledger=no_ledger)

        clients = _looked_at(client_app(find, simulated=True), prepared)
        app = stack.enter_context(WorkerProcesses(clients))
        # After the fork, which must not have it open.
        stack.enter_context(StateStore(place, shared=False))
        grid = InProcessGrid(app, nodes=prepared.setting.clients, threads=threads)
        return rounds(stack.enter_context(grid))


def _looked_at(app: App, prepared: PreparedExperiment) -> App:
    """The app with its replies looked at where they are made, where that is all it takes."""
    forms = prepared.forms
    # A sum of masked answers is the server's to add up; a difference takes what the server has.
    if prepared.setting.securely or (forms is not None and forms.how.remembers):
        return app
    return looking(app, prepared, partial(checked, prepared), f"train.{ACTION}")


def _on_ray(
    prepared: PreparedExperiment,
    states: Path | None,
    threads: int,
    rounds: Callable[..., nn.Module],
    teachers: frozenset[int],
) -> nn.Module:
    if states is None:
        raise ValueError("Expected a folder for client states: Ray's workers share no memory.")
    server, outcome = ServerApp(), []

    @server.main()
    def main(grid: Grid, _context: Context) -> None:
        outcome.append(rounds(grid))

    find = partial(_of_rays_worker, prepared.experiment.to_json(), states.resolve(), teachers)
    client = client_app(find, simulated=True)
    flower = logging.getLogger("flwr")
    level = flower.level
    flower.setLevel(logging.ERROR)
    try:
        with StateStore(states, shared="RAY_ADDRESS" in os.environ):
            compat.ray_simulation(server, client, nodes=prepared.setting.clients, cores=threads)
    finally:
        flower.setLevel(level)
    return outcome[0]


def _of_rays_worker(
    experiment: str, states: Path, teachers: frozenset[int], _context: Context, call: Call
) -> ClientParty:
    tune_allocator()  # of Ray's worker, which this is
    return _of_worker(prepare_json(experiment), states, teachers, call.client)


def _of_worker(
    prepared: PreparedExperiment, states: Path, teachers: frozenset[int], client: int
) -> ClientParty:
    store = of_process(states, rounds_back(prepared.experiment), os.getpid())
    return _on_disk(prepared, store, teachers, client)


def _on_disk(
    prepared: PreparedExperiment, store: StateStore, teachers: frozenset[int], client: int
) -> ClientParty:
    """A client whose state is in the run's store."""
    ledger = partial(Ledger, client_ledger(prepared.experiment.privacy, store.folder, client))
    state = StoredState(store, client, store.folder / _folder_name(client))
    return ClientParty(prepared, state, ledger, shows_teacher=client in teachers)


def teacher(prepared: PreparedExperiment, states: Path, client: int) -> nn.Module | None:
    """A client's teacher as its last round left it; None where none is kept: see `simulate`.

    Raises:
        StorageError: what it keeps is damaged.
    """
    with StateStore(states) as store:
        state = StoredState(store, client, states / _folder_name(client))
        kept = state.load(before=prepared.experiment.rounds + 1)
    if not (weights := group("teacher", kept)):
        return None
    spec = prepared.experiment.client_model(client)
    own = prepared.setting.of_client(client)
    model = own.build(spec, purpose="teacher", client=client)
    model.load_state_dict(weights)
    return model


def client_ledger(privacy: Privacy, states: Path, client: int) -> Path:
    """A client's ledger: in its own folder under `states`, or the one that all runs share."""
    if privacy.ledger:
        return Path(privacy.ledger) / _LEDGER
    return states / _folder_name(client) / _LEDGER


def client_ledgers(privacy: Privacy, states: Path) -> list[Path]:
    """The clients' ledgers that exist."""
    if privacy.ledger:
        file = Path(privacy.ledger) / _LEDGER
        return [file] if beside(file, ".seal").exists() else []
    return list(states.glob(f"client-*/{_LEDGER}"))


def server_ledger(privacy: Privacy, states: Path) -> Path:
    """The server's ledger, under the client units: beside `states`, or where all runs share it."""
    return Path(privacy.ledger) / "server.db" if privacy.ledger else states.parent / _LEDGER


def _folder_name(client: int) -> str:
    return f"client-{client:04d}"
