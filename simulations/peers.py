"""fedkd beside other simulators: the same federated averaging, in one interleaved run.

    python simulations/peers.py             # makes environments, then measures: half an hour
    python simulations/peers.py --cells mlp --rounds 9 --peers fedkd "loop, 1 thread"
    python simulations/peers.py --jobs      # whole jobs, from process start to end

10 clients of 600 images, one epoch of SGD in batches of 32, nothing scored; see `rivals/work.py`.
In the table of rounds all workers stand ready and take turns at a round each, so that a slow minute
of the machine is everybody's. Prints medians of wall and of CPU seconds of each worker's process
tree, and what a peer's are over fedkd's best. The machine should be idle.

fedkd, the plain loop, the bare pools and Flower run in this Python, which needs `fedkd[ray]` and
psutil. pfl and blazefl get an environment of their own in `--environments`. blazefl asks for Python
3.14; its syntax for generics is rewritten for older ones, which changes nothing of what it does.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
CELLS = ("mlp", "cnn", "resnet8")
OURS = "fedkd"
"""What the names of our own engines begin with."""
_GENERIC = re.compile(r"^def (\w+)\[T\]\(", re.MULTILINE)
console = Console()


@dataclass(frozen=True)
class Peer:
    """A framework, and how its worker is started."""

    worker: str
    """A file of `rivals`."""
    threads: int = 2
    variables: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Packages of an environment of its own; none: this Python's."""


PFL, BLAZE = ("torch==2.13.0", "numpy<2.5", "pfl==0.6.0"), ("torch==2.13.0", "numpy<2.5", "tqdm")
PEERS = {
    "fedkd": Peer("ours.py"),
    "fedkd, processes": Peer("ours.py", variables={"PEERS_ENGINE": "processes"}),
    "loop, 1 thread": Peer("loop.py", threads=1),
    "loop, 2 threads": Peer("loop.py"),
    "pool of threads": Peer("pool.py"),
    "pool of processes": Peer("pool.py", variables={"PEERS_PROCESSES": "1"}),
    "blazefl": Peer("blaze.py", needs=(*BLAZE, "blazefl==3.0.0")),
    "pfl, 1 thread": Peer("apple_pfl.py", threads=1, needs=PFL),
    "pfl, 2 threads": Peer("apple_pfl.py", needs=PFL),
    "Flower on Ray, 1 CPU": Peer("flower_ray.py"),
    "Flower on Ray, 2 CPUs": Peer("flower_ray.py", variables={"PEERS_CPUS": "2"}),
}


@dataclass
class Worker:
    """A peer at work on one cell, round by round."""

    process: subprocess.Popen[str]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @classmethod
    def started(cls, peer: Peer, python: Path, cell: str, rounds: int) -> Self:
        return cls(_start(peer, python, cell, rounds, "--waits"))

    def warm(self) -> None:
        """Wait for the first round, which is not measured."""
        self._read("round")

    def round(self) -> None:
        before, started = _cpu_seconds(self.process.pid), time.perf_counter()
        self._say()
        self._read("round")
        self.wall.append(time.perf_counter() - started)
        self.cpu.append(_cpu_seconds(self.process.pid) - before)

    def ends(self) -> float:
        """The accuracy at the end."""
        self._say()
        return float(self._read("accuracy").split()[1])

    def _say(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def _read(self, word: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word):
                return line
        raise SystemExit(f"{self.process.args} ended early: run it by hand to see why")


def _start(peer: Peer, python: Path, cell: str, rounds: int, *more: str) -> subprocess.Popen[str]:
    command = [python, HERE / "rivals" / peer.worker, cell, "--rounds", str(rounds)]
    return subprocess.Popen(
        [*map(str, command), "--threads", str(peer.threads), *more],
        env={**os.environ, **peer.variables, "OMP_NUM_THREADS": str(peer.threads)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _cpu_seconds(pid: int) -> float:
    """What a process and all below it have used."""
    total = 0.0
    top = psutil.Process(pid)
    for process in (top, *top.children(recursive=True)):
        try:
            used = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return total


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Have a process, and all below it, be gone afterwards."""
    try:
        yield
    finally:
        if process.poll() is None:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                for each in psutil.Process(process.pid).children(recursive=True):
                    each.kill()
                process.kill()
                process.wait()


def environment(folder: Path, peer: Peer) -> Path:
    """The Python that a peer runs on, made if need be."""
    if not peer.needs:
        return Path(sys.executable)
    home = folder / Path(peer.worker).stem
    python = home / "bin" / "python"
    if not (home / "made").exists():
        console.print(f"making {home} with {', '.join(peer.needs)}")
        venv.create(home, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        own = [each for each in peer.needs if each.startswith("blazefl")]
        subprocess.run([*pip, *(set(peer.needs) - set(own))], check=True)
        if own:
            subprocess.run([*pip, "--ignore-requires-python", "--no-deps", *own], check=True)
            for file in home.glob("lib/python*/site-packages/blazefl/**/*.py"):
                text = _GENERIC.sub(r"def \1(", file.read_text())
                file.write_text(f"from __future__ import annotations\n{text}")
        (home / "made").touch()
    return python


def rounds(names: Sequence[str], pythons: Mapping[str, Path], cell: str, count: int) -> None:
    """Measure warm rounds, in turns, and print them."""
    with ExitStack() as stack:
        workers = {}
        for name in names:
            worker = Worker.started(PEERS[name], pythons[name], cell, count + 1)
            stack.enter_context(_ended(worker.process))
            worker.warm()
            workers[name] = worker
        for _ in range(count):
            for worker in workers.values():
                worker.round()
        accuracies = {name: worker.ends() for name, worker in workers.items()}
    _print(
        f"a warm round, {cell}: medians of {count}",
        {n: (statistics.median(w.wall), statistics.median(w.cpu)) for n, w in workers.items()},
        accuracies,
    )


def jobs(names: Sequence[str], pythons: Mapping[str, Path], cell: str, count: int) -> None:
    """Measure whole jobs of `count` rounds, three of each in turns, and print them."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    accuracies = {}
    for _ in range(3):
        for name in names:
            started = time.perf_counter()
            process = _start(PEERS[name], pythons[name], cell, count)
            assert process.stdout is not None
            used = 0.0
            with _ended(process):
                for line in process.stdout:
                    if line.startswith(("round", "accuracy")):
                        used = max(used, _cpu_seconds(process.pid))
                    if line.startswith("accuracy"):
                        accuracies[name] = float(line.split()[1])
                process.wait()
            taken[name].append((time.perf_counter() - started, used))
    _print(
        f"a whole job of {count} rounds, {cell}: medians of 3",
        {
            n: (statistics.median(w for w, _ in t), statistics.median(c for _, c in t))
            for n, t in taken.items()
        },
        accuracies,
    )


def _print(
    title: str, taken: Mapping[str, tuple[float, float]], accuracies: Mapping[str, float]
) -> None:
    ours = [each for name, each in taken.items() if name.startswith(OURS)]
    best = min(ours or taken.values())
    table = Table("who", "wall s", "CPU s", "wall, over fedkd's best", "accuracy", title=title)
    for name, (wall, cpu) in taken.items():
        ratio = f"{wall / best[0]:.2f}"
        table.add_row(name, f"{wall:.3f}", f"{cpu:.3f}", ratio, f"{accuracies[name]:.3f}")
    console.print(table)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=CELLS)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jobs", action="store_true", help="whole jobs in place of warm rounds")
    parser.add_argument("--environments", type=Path, default=Path("runs/peers"))
    asked = parser.parse_args()
    pythons = {name: environment(asked.environments, PEERS[name]) for name in asked.peers}
    measure = jobs if asked.jobs else rounds
    for cell in asked.cells:
        measure(asked.peers, pythons, cell, asked.rounds)


if __name__ == "__main__":
    main()
