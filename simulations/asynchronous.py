"""One client takes ten times as long: how long until the student is as good as without it?

    python simulations/asynchronous.py [--seeds 0 1 2] [--methods fedmd fedavg] [--buffers 9]

The federation of fedkd/configs/demo.toml; a method that averages models has "mlp" everywhere. The
unit of time is a training of an ordinary client, the server's own time is none, and with seed s
client s is the slow one. `goal` is the accuracy that the demo ends with after its 5 rounds, which
take 5 units without a slow client and 50 with it where each round waits for all. Printed are, for
each buffer, the units after which an asynchronous run first has that accuracy, and what it has
after as many units as the demo takes.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from fedkd import config
from fedkd.data.types import Samples
from fedkd.federation import engines
from fedkd.federation.answers import Record, Unwatched
from fedkd.federation.prepare import prepare
from fedkd.federation.server import Checkpoint

DEMO = Path(__file__).parents[1] / "fedkd" / "configs" / "demo.toml"
SLOW = 10
"""Times as long as the others."""
MORE = 2
"""Rounds beyond the demo's, in which it may still get there."""
EQUAL = ("clients.models=['mlp']", "student.model='mlp'")
"""What a method that averages models needs."""


class Records:
    """A keeper of what each round came to."""

    def __init__(self) -> None:
        self.kept: list[Record] = []

    def resume(self) -> Checkpoint | None:
        """Nothing to go on from."""
        return None

    def keep(self, record: Record, checkpoint: Checkpoint, generated: Samples | None) -> None:
        """Keep the record."""
        self.kept.append(record)


def accuracies(changes: Sequence[str]) -> list[tuple[float, float]]:
    """When each step was made, and how good the student was then."""
    records = Records()
    engines.simulate(prepare(config.load(DEMO, changes)), records, Unwatched(), states=None)
    return [
        (record.get("asynchronous", {}).get("time", record["round"]), record["student"]["accuracy"])
        for record in records.kept
    ]


def reached(course: Sequence[tuple[float, float]], goal: float) -> float | None:
    """When the student first was as good as the goal; None: never."""
    return next((time for time, accuracy in course if accuracy >= goal), None)


def main() -> None:
    """Run the study and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=["fedmd", "fedavg"])
    parser.add_argument("--buffers", type=int, nargs="+", default=[9])
    asked = parser.parse_args()
    for method in asked.methods:
        times: dict[int, list[float | None]] = {buffer: [] for buffer in asked.buffers}
        for seed in asked.seeds:
            equal = EQUAL if method in ("fedavg", "fedprox", "feddf") else ()
            common = (f"seed={seed}", f"method.name={method}", *equal)
            course = accuracies(common)
            end, goal = course[-1]
            print(f"{method} seed {seed}: goal {goal:.4f} after {end:g} units, "
                  f"{SLOW * end:g} if all wait for client {seed}", flush=True)  # fmt: skip
            seconds = [SLOW if client == seed else 1 for client in range(10)]
            for buffer in asked.buffers:
                how = f"clients.asynchronous={{buffer={buffer}, seconds={seconds}}}"
                late = accuracies((*common, f"rounds={len(course) + MORE}", how))
                times[buffer].append(reached(late, goal))
                then = max(accuracy for time, accuracy in late if time <= end)
                print(f"  buffer {buffer}: there after {times[buffer][-1]} units; by unit {end:g} "
                      f"{then:.4f}; {[(t, round(a, 4)) for t, a in late]}", flush=True)  # fmt: skip
        for buffer, found in times.items():
            done = [time for time in found if time is not None]
            mean = f"{statistics.mean(done):.2f}" if done else "-"
            print(f"{method}, buffer {buffer}: {len(done)} of {len(found)} got there, after {mean} "
                  "units on average")  # fmt: skip


if __name__ == "__main__":
    main()
