"""What many clients cost: CPU of each in a round, and the memory and disk of a run.

    python simulations/scale.py --clients 1000 10000

FedAvg by default, `mlp` models, 20 random images a client, all clients in both rounds. Each run has
a process and a run folder of its own. CPU time stays what it is while other work goes on beside.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fedkd import config
from fedkd.federation import engines
from fedkd.federation.answers import Unwatched
from fedkd.federation.prepare import prepare
from fedkd.runs.folder import RunFolder

IMAGES, TESTED, ROUNDS = 20, 10, 2


def experiment(data: Path, clients: int, method: str, engine: str) -> config.Experiment:
    """Two rounds of all clients."""
    table: dict[str, Any] = {
        "name": "scale",
        "rounds": ROUNDS,
        "data": {"name": str(data), "partition": {"scheme": "iid"}},
        "clients": {
            "count": clients,
            "models": ["mlp"],
            "training": {"epochs": 1, "batch_size": 10},
        },
        "student": {"model": "mlp"},
        "method": {"name": method},
        "engine": {"kind": engine},
    }
    if method in ("fedmd", "feddf", "dsfl"):
        table["data"]["public"] = {"size": 100}
    return config.parse(table)


def run(place: Path, clients: int, method: str, engine: str) -> dict[str, float]:
    """Run once in this process, into `place`; its figures."""
    data = place / "random.npz"
    save_data(data, clients)
    prepared = prepare(experiment(data, clients, method, engine))
    folder = RunFolder(place / "run")
    folder.open(prepared.experiment, prepared.data, resume=False)
    wall, cpu = time.perf_counter(), cpu_seconds()
    engines.simulate(prepared, folder, Unwatched(), states=folder.states)
    files = [file.stat() for file in folder.path.rglob("*") if file.is_file()]
    peaks = [resource.getrusage(who).ru_maxrss for who in WHOSE]  # KiB on Linux
    return {
        "seconds": time.perf_counter() - wall,
        "cpu": (cpu_seconds() - cpu) / clients / ROUNDS,
        "memory": max(peaks) * 1024,
        "disk": sum(file.st_blocks * 512 for file in files),
        "files": len(files),
    }


def save_data(file: Path, clients: int) -> None:
    """Random images of random classes for so many clients."""
    draw, size = np.random.default_rng(0), clients * IMAGES + 100
    x, y = draw.integers(0, 256, (size, 28, 28), dtype=np.uint8), np.arange(size) % 10
    np.savez(file, x_train=x, y_train=y, x_test=x[:TESTED], y_test=y[:TESTED])


WHOSE = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN


def cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in WHOSE]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--methods", nargs="+", default=["fedavg"])
    parser.add_argument("--engine", default="in-process")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        [clients], [method] = asked.clients, asked.methods
        found = run(asked.here, clients, method, asked.engine)
        (asked.here / "figures.json").write_text(json.dumps(found))
        return
    table = Table("clients", "method", "CPU ms", "seconds", "peak memory", "disk", "files")
    for clients in asked.clients:
        for method in asked.methods:
            with tempfile.TemporaryDirectory() as place:
                what = ["--clients", str(clients), "--methods", method, "--engine", asked.engine]
                subprocess.run([sys.executable, __file__, *what, "--here", place], check=True)
                found = json.loads((Path(place) / "figures.json").read_text())
            table.add_row(
                f"{clients:,}",
                method,
                f"{found['cpu'] * 1e3:.1f}",
                f"{found['seconds']:.0f}",
                f"{found['memory'] / 1e9:.2f} GB",
                f"{found['disk'] / 1e6:,.0f} MB",
                f"{found['files']:,}",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
