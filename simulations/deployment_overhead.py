"""What a deployed round costs beside its training.

    python simulations/deployment_overhead.py

Brings up a server and three sites on this machine twice: with fedkd's own sites, and with Flower's
plain SuperNodes, which run the same bundle as they run any app, in a new Python for each message.
Training takes a fraction of a second here, so that nearly all of a round is overhead. The machine
should be idle.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedkd import config
from fedkd.federation.deploy import keys, processes
from fedkd.federation.deploy.siteapp import SITE
from fedkd.federation.deploy.superlink import READY, Server
from fedkd.jobs import local
from fedkd.jobs.submit import submit

ROUNDS, SITES = 8, 3
TABLE = {
    "name": "overhead",
    "rounds": ROUNDS,
    "data": {
        "name": "fashion-mnist-sample",
        "public": {"source": "held-out", "size": 200},
        "partition": {"scheme": "iid"},
    },
    "clients": {"count": SITES, "models": ["mlp"], "training": {"epochs": 1, "batch_size": 512}},
    "student": {"model": "mlp"},
    "method": {"name": "fedmd", "student": {"epochs": 1}},
}


class Quiet:
    """An observer that looks away."""

    def __getattr__(self, name: str) -> object:
        return lambda *_: None


@contextmanager
def plain_flower(place: Path) -> Iterator[Server]:
    """Like `local.running`, with Flower's own SuperNodes."""
    bin = Path(sys.executable).parent
    port = (place / "port").read_text("utf-8")
    started = []
    for index, site in enumerate(sorted((place / "sites").iterdir())):
        command = [bin / "flower-supernode", "--superlink", f"127.0.0.1:{port}"]
        command += ["--root-certificates", place / keys.CA, "--port", processes.free_port() + index]
        command += ["--auth-supernode-private-key", place / keys.CLIENTS / site.name]
        env = {
            **os.environ,
            SITE: str(site / "SITE.toml"),
            "FLWR_HOME": str(site / "flower"),
            "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}",
        }
        with (place / f"{site.name}.log").open("wb") as log:
            started.append(
                subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, env=env)
            )
    try:
        with server_alone(place) as server:
            yield server
    finally:
        for process in started:
            process.terminate()
            process.wait()


@contextmanager
def server_alone(place: Path) -> Iterator[Server]:
    """A server without sites."""
    state = place / "server"
    port = (place / "port").read_text("utf-8")
    command = [sys.executable, "-m", "fedkd", "deploy", "server", "--state", str(state)]
    command += ["--keys", str(place), "--host", "127.0.0.1", "--port", port]
    with (place / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while not (state / READY).exists():
            time.sleep(0.1)
        yield Server.read(state)
    finally:
        process.terminate()
        process.wait()


def overheads(folder: Path, bring_up: object) -> list[float]:
    """Seconds of each round but the first that were neither a client's work nor the server's."""
    place = folder / "run-federation"
    experiment = config.parse(TABLE)
    local.lay_out(experiment, place)
    with bring_up(place) as server:  # type: ignore[operator]
        shared = place / "shared.safetensors"
        submit(experiment, server, folder / "run", Quiet(), shared=shared)  # type: ignore[arg-type]
    lines = (folder / "run" / "rounds.jsonl").read_text("utf-8").splitlines()
    spent = []
    for record in map(json.loads, lines[1:]):
        phases = record["seconds"]["phases"]
        work = sum(s for phase, s in phases.items() if not phase.startswith("server")) / SITES
        spent.append(record["seconds"]["clients"] - work)
    return spent


def main() -> None:
    """Measure both, and print a table."""
    print("| sites | median s a round above the training | least | most |\n|---|---|---|---|")
    for name, bring_up in (("fedkd's", local.running), ("Flower's plain", plain_flower)):
        with tempfile.TemporaryDirectory() as folder:
            spent = overheads(Path(folder), bring_up)
        middle = statistics.median(spent)
        print(f"| {name} | {middle:.1f} | {min(spent):.1f} | {max(spent):.1f} |")


if __name__ == "__main__":
    main()
