"""A whole deployment on one machine, for a trial: server and sites as processes of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w

from fedkd import data, methods, tasks
from fedkd.config import Experiment, with_specs
from fedkd.data import shared_file
from fedkd.data.types import Samples
from fedkd.errors import FederationError, UsageError
from fedkd.federation.answers import Observer
from fedkd.federation.deploy import bundle, keys, processes
from fedkd.federation.deploy.superlink import READY, Server
from fedkd.federation.prepare import PreparedExperiment, prepare
from fedkd.jobs.submit import submit
from fedkd.runs.common import check_there, locked

_START = 120.0
_STOP = 10.0
_HOST = "127.0.0.1"
_PORT = "port"
_SERVER = "server"


def local(
    experiment: Experiment, folder: Path, observer: Observer, *, resume: bool = False
) -> dict[str, Any]:
    """Deploy an experiment on this machine, with TLS, keys, policies and all, and take it down.

    What a real federation would hold on several machines is left beside the run folder, in
    `FOLDER-federation`: keys, the server's state, each site's file, data, state and log.

    Args:
        experiment: what to run; its data is split as in a simulation, a file for each site.
        folder: the run folder.
        observer: is told what happens.
        resume: go on after the last finished round.

    Returns:
        The summary.

    Raises:
        UsageError, BudgetError, FederationError: as `submit`.
    """
    place = folder.with_name(f"{folder.name}-federation")
    if resume and not place.exists():
        check_there(folder)
    if not resume and (existing := next((p for p in (folder, place) if p.exists()), None)):
        raise UsageError(
            f"folder {str(existing)!r} exists: go on with --resume, or name another with --out"
        )
    if not place.exists():
        lay_out(experiment, place)
    if not (place / _PORT).exists():
        raise UsageError(
            f"folder {str(place)!r} is incomplete: remove it, and start without --resume"
        )
    with locked(place), running(place) as server:
        shared, begun = place / "shared.safetensors", folder.exists()
        summary = submit(experiment, server, folder, observer, shared=shared, resume=begun)
    return summary or {}


def lay_out(
    experiment: Experiment, place: Path, *, server: str | None = None, clients: Sequence[str] = ()
) -> None:
    """Write what the parties would hold: keys, what is shared, and a folder for each site.

    Args:
        experiment: what is to run; its data is split as in a simulation, a file for each site.
        place: the folder to make; it may be there, if it is empty.
        server: where sites reach the server, `host:port`; None: here, at a free port.
        clients: the sites' names, as many as the experiment has; none: `client-0000` and so on.

    Raises:
        UsageError: the folder holds something, the address or a name will not do, or there are not
            as many names as clients. Nothing was written.
    """
    address = server or f"{_HOST}:{processes.free_port()}"
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 2**16):
        raise UsageError(f"server {address!r}: expected host:port, such as fed.example.org:9400")
    if place.exists() and any(place.iterdir()):
        raise UsageError(f"folder {str(place)!r} is not empty: name another")
    prepared = prepare(experiment)
    names = clients or [f"client-{i:04d}" for i in range(len(prepared.data.clients))]
    if len(names) != len(prepared.data.clients):
        raise UsageError(
            f"{len(names)} sites are named, and the experiment has {len(prepared.data.clients)} "
            "clients: name each of them, or none"
        )
    keys.make(place, servers=[host], clients=names)
    sites = processes.private_folder(place) / "sites"
    processes.private_folder(place / _SERVER)
    (place / "shared.safetensors").write_bytes(shared_file.to_bytes(prepared.data))
    _hand_out_weights(prepared.experiment, place / "weights")
    for client, (name, samples) in enumerate(zip(names, _unscaled(prepared), strict=True)):
        site = processes.private_folder(sites / name)
        shared_file.write_own(site / "data.npz", samples)
        (site / "SITE.toml").write_text(_site(prepared, client, name, address), "utf-8")
    (place / _PORT).write_text(port, "utf-8")  # last: whoever finds it finds the rest


def _hand_out_weights(experiment: Experiment, folder: Path) -> None:
    """Have what models start from in one folder, where sites look for it by its name."""
    folder.mkdir()

    def link(where: str) -> str:
        (there := folder / Path(where).name).unlink(missing_ok=True)
        there.symlink_to(where)
        return where

    with_specs(experiment, partial(bundle.moved, where=link))


def _unscaled(prepared: PreparedExperiment) -> tuple[Samples, ...]:
    """Each client's rows as its own file has them: a site scales them by the shared file."""
    if not prepared.data.scale:
        return prepared.data.clients
    count, seed = prepared.setting.clients, prepared.experiment.seed
    return data.federate(
        prepared.experiment.data,
        clients=count,
        seed=seed,
        task=tasks.find(prepared.experiment.task.name),
        scaled=False,
    ).clients


@contextmanager
def running(place: Path) -> Iterator[Server]:
    """A server and all sites of a place, until the block ends; whatever happens, none is left.

    Raises:
        FederationError: one of them ends at once, or is not ready in time.
    """
    port = (place / _PORT).read_text("utf-8")
    state = place / _SERVER
    (place / "logs").mkdir(exist_ok=True)
    (state / READY).unlink(missing_ok=True)
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        command = ["server", "--state", str(state), "--keys", str(place)]
        started["server"] = _start(place, "server", [*command, "--host", _HOST, "--port", port])
        _wait(place, "the server is not ready", started, (state / READY).exists)
        server = Server.read(state)
        for site in sorted((place / "sites").iterdir()):
            started[site.name] = _start(place, site.name, ["client", str(site / "SITE.toml")])
        with server.control() as control:
            _wait(
                place,
                "not all sites are connected",
                started,
                lambda: all(node.online for node in control.nodes()),
            )
        yield server
    finally:
        _stop(list(started.values()))


def _site(prepared: PreparedExperiment, client: int, name: str, server: str) -> str:
    """A site's file for a trial: it allows this experiment, and what that costs."""
    experiment, device = prepared.experiment, prepared.setting.device(client)
    _, complete = methods.resolve(experiment)
    privacy = experiment.privacy
    cap = {"unit": "record", "epsilon": privacy.epsilon, "delta": privacy.delta}
    cap |= {"secure_aggregation": True} if privacy.secure_aggregation else {}
    seen = (*complete.clients.models, complete.student.model)
    models = {bundle.moved(model, where=bundle.last).name for model in seen}
    table = {
        "name": name,
        "server": server,
        "ca": f"../../{keys.CA}",
        "key": f"../../{keys.CLIENTS}/{name}",
        "clients": f"../../{keys.CLIENTS}",
        "shared": "../../shared.safetensors",
        "weights": "../../weights",
        "state": "state",
        "device": str(device),
        "data": {"path": "data.npz", "layout": "as-stored"},
        "allow": {
            "methods": [experiment.method.name],
            "models": sorted(models),
            "exemplars": experiment.method.parameters.get("exemplars", 0),
        },
        "privacy": cap if privacy.unit == "record" else {"unit": "none"},
        "limits": {"rounds": max(100, experiment.rounds)},
    }
    return tomli_w.dumps(table)


def _start(place: Path, name: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    with (place / "logs" / f"{name}.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - this very command
            [sys.executable, "-m", "fedkd", "deploy", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, processes.PARENT: str(os.getpid())},
            start_new_session=True,  # an interrupt from the keyboard is for this process to pass on
        )


def _wait(
    place: Path,
    what: str,
    started: dict[str, subprocess.Popen[bytes]],
    ready: Callable[[], bool],
) -> None:
    end = time.monotonic() + _START
    while not ready():
        for name, process in started.items():
            if process.poll() is not None:
                log = place / "logs" / f"{name}.log"
                raise FederationError(f"{name} ended with status {process.returncode}: see {log}")
        if time.monotonic() > end:
            raise FederationError(f"{what} after {_START:.0f} s: see {place / 'logs'}")
        time.sleep(0.2)


def _stop(started: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in started:
        process.terminate()
    end = time.monotonic() + _STOP
    for process in started:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
