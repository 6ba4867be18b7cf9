"""A deployment of ten sites of which three lie and two are killed, beside an honest one.

    python simulations/hostile_deployment.py [--seeds 1] [--alpha 1.0]

A real server and ten real sites on this machine, with TLS and keys, twice: once all are honest, and
once three have turned all their labels round (class c is 9 - c) and two others are killed with
signal 9 in the second round. The server has the settings of any deployment: it screens clients,
since they are strangers, and nobody tells it who lies.
"""

import argparse
import json
import os
import signal
import tempfile
from pathlib import Path

import numpy as np

from fedkd import config
from fedkd.jobs import local
from fedkd.jobs.submit import submit

ROUNDS, SITES, CLASSES = 4, 10, 10
HOSTILE, KILLED = (0, 1, 2), (3, 4)


def table(seed: int, alpha: float) -> dict[str, object]:
    """The experiment: logits of ten sites on a proxy set, label skew of Dirichlet alpha."""
    return {
        "name": "hostile-deployment",
        "seed": seed,
        "rounds": ROUNDS,
        "data": {
            "name": "fashion-mnist-sample",
            "public": {"source": "held-out", "size": 1000},
            "partition": {"scheme": "dirichlet", "alpha": alpha},
        },
        "clients": {
            "count": SITES,
            "models": ["mlp", "lenet5"],
            "training": {"epochs": 2, "batch_size": 32, "learning_rate": 0.02},
            "deadline": 600,
        },
        "student": {"model": "lenet5"},
        "method": {"name": "fedmd"},
    }


class Killer:
    """An observer that kills sites once they are at work in the second round."""

    def __init__(self, sites: list[Path]) -> None:
        self.sites = sites

    def round_begins(self, round: int, cohort: list[int]) -> None:
        """Kill, and no more after that."""
        if round == 2:
            for site in self.sites:
                kill(site)

    def __getattr__(self, name: str) -> object:
        return lambda *_: None


def kill(site: Path) -> None:
    """Kill all processes that were started for a site's SITE.toml."""
    wanted = str(site / "SITE.toml").encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
            if wanted in command:
                os.kill(int(folder.name), signal.SIGKILL)


def turn_round(site: Path) -> None:
    """Have a site's labels say 9 - c where they said c."""
    with np.load(site / "data.npz") as stored:
        arrays = dict(stored)
    for name in [name for name in arrays if name.startswith("y")]:
        arrays[name] = CLASSES - 1 - arrays[name]
    np.savez(site / "data.npz", **arrays)


def run(folder: Path, seed: int, alpha: float, *, hostile: bool) -> list[dict[str, object]]:
    """One deployment's records."""
    experiment = config.parse(table(seed, alpha))
    place = folder / "federation"
    local.lay_out(experiment, place)
    sites = [place / "sites" / f"client-{client:04d}" for client in range(SITES)]
    if hostile:
        for client in HOSTILE:
            turn_round(sites[client])
    watch = Killer([sites[client] for client in KILLED] if hostile else [])
    with local.running(place) as server:
        shared = place / "shared.safetensors"
        submit(experiment, server, folder / "run", watch, shared=shared)  # type: ignore[arg-type]
    return [json.loads(line) for line in (folder / "run" / "rounds.jsonl").open("rb")]


def main() -> None:
    """Run both for each seed, and print a line a deployment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--alpha", type=float, default=1.0)
    options = parser.parse_args()
    for seed in range(options.seeds):
        for hostile in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                records = run(Path(folder), seed, options.alpha, hostile=hostile)
            last = records[-1]
            print(
                f"seed {seed}, {'3 of 10 lie, 2 are killed' if hostile else 'all honest'}: "
                f"student {last['student']['accuracy']:.3f}, "
                f"not heard {[each['robust']['left_out'] for each in records]}, "
                f"lost {[[f['client'] for f in each['failures']] for each in records]}",
                flush=True,
            )


if __name__ == "__main__":
    main()
