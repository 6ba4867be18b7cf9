"""What a round costs in threads and in worker processes: which engine to choose for which models.

    python simulations/engine_kinds.py [--quick]

FedAvg on random images, one epoch in batches of 32, states on disk, ten test images. For each cell
the engines take turns; a warm round is what several rounds take beyond one. CPU time counts all
processes, and means something on a busy machine too; the clock's time only on an idle one.
"""

import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from engine_speed import Forget, Unwatched, prepared
from rich.console import Console
from rich.table import Table

from fedkd.federation import engines

KINDS = ("in-process", "processes")
ROUNDS = 3
"""Warm rounds of one measurement."""
console = Console()


@dataclass(frozen=True)
class Cell:
    """The clients of a measurement."""

    model: str
    clients: int
    images: int

    def __str__(self) -> str:
        return f"{self.clients:,} x {self.images}, {self.model}"


CELLS = [
    Cell("mlp", 10, 600),
    Cell("lenet5", 10, 600),
    Cell("resnet8", 10, 600),
    Cell("mlp", 1000, 20),
]
QUICK = [Cell("mlp", 10, 600), Cell("lenet5", 10, 200), Cell("resnet8", 4, 100)]
QUICK.append(Cell("mlp", 100, 20))


def cpu_seconds() -> float:
    """Of this process and all that it has waited for."""
    of = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in of)


def seconds(cell: Cell, kind: str, rounds: int) -> tuple[float, float]:
    """By the clock and of the CPU, for a run of so many rounds without its preparation."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {"clients": cell.clients, "images": cell.images, "rounds": rounds}
        ready = prepared(folder, "fedavg", **sizes, model=cell.model, kind=kind)
        cpu, clock = cpu_seconds(), time.perf_counter()
        engines.simulate(ready, Forget(), Unwatched(), states=folder / "states")
        return time.perf_counter() - clock, cpu_seconds() - cpu


def warm_round(cell: Cell, kind: str) -> tuple[float, float]:
    """As `seconds`, of one round after the first."""
    long, short = seconds(cell, kind, ROUNDS + 1), seconds(cell, kind, 1)
    return (long[0] - short[0]) / ROUNDS, (long[1] - short[1]) / ROUNDS


def main(*arguments: str) -> None:
    """Measure, print."""
    quick = "--quick" in arguments
    table = Table("clients", *(f"{kind}: clock, CPU" for kind in KINDS), "ratios")
    for cell in QUICK if quick else CELLS:
        found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
        for _ in range(1 if quick else 5):
            for kind in KINDS:
                found[kind].append(warm_round(cell, kind))
        columns = {
            kind: [statistics.median(column) for column in zip(*rows, strict=True)]
            for kind, rows in found.items()
        }
        threads, processes = columns.values()
        ratios = (b / a for a, b in zip(threads, processes, strict=True))
        table.add_row(
            str(cell),
            *(f"{clock:.3f} s, {cpu:.3f} s" for clock, cpu in columns.values()),
            ", ".join(f"{ratio:.2f}" for ratio in ratios),
        )
        console.print(table.row_count, "of", len(CELLS))
    console.print(table)


if __name__ == "__main__":
    main(*sys.argv[1:])
