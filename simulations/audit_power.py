"""How often the white-box audit accuses correct code, and how often it finds half the noise.

    python simulations/audit_power.py [--seeds 40] [--faulty 10]

Packaged sample, FedDF with one small architecture, two rounds, record-level DP at epsilon 4, delta
1e-5, 2,000 canaries, 95% confidence. A correct training may be accused on 5% of seeds at most; one
with half the noise should be found by the Gaussian-DP estimator nearly always, and is rarely found
by the one-run bound, which assumes nothing.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from rich.console import Console
from torch import Tensor

from fedkd import config
from fedkd.auditing.findings import Audited
from fedkd.config import Experiment
from fedkd.jobs.audit.teachers import audit_teacher
from fedkd.learning.dp import sgd
from fedkd.privacy import mechanisms

console = Console()


def experiment(seed: int) -> Experiment:
    """Two rounds of a small teacher at epsilon 4."""
    return config.parse(
        {
            "name": "audit-power",
            "seed": seed,
            "rounds": 2,
            "data": {"public": {"size": 2000}},
            "clients": {
                "count": 5,
                "models": [{"name": "mlp", "hidden": [32]}],
                "training": {"epochs": 2},
            },
            "student": {"model": "mlp"},
            "method": {"name": "feddf"},
            "privacy": {"epsilon": 4.0, "sample_rate": 0.25},
        }
    )


@contextmanager
def noise_times(factor: float) -> Iterator[None]:
    """A fault: so many times the noise that is accounted."""

    def weaker(value: Tensor, *, noise_multiplier: float, **how: Any) -> Tensor:
        return mechanisms.gaussian(value, noise_multiplier=factor * noise_multiplier, **how)

    with mock.patch.object(sgd, "gaussian", weaker):
        yield


def audited(seeds: int, factor: float) -> list[Audited]:
    """What is found with each seed."""
    found = []
    with noise_times(factor):
        for seed in range(seeds):
            with console.status(f"noise times {factor:g}: seed {seed} of {seeds}"):
                found.append(audit_teacher(experiment(seed), lambda *_: None))
    return found


def report(name: str, every: list[Audited], seconds: float) -> None:
    """One line for each estimator and for the looks: on how many seeds they refute the claim."""
    found = [verdict for each in every for verdict in each.verdicts]
    outcomes = Counter(verdict.outcome for verdict in found)
    console.print(f"[bold]{name}[/bold], {len(found)} seeds, {seconds:.0f} s: {dict(outcomes)}")
    claimed = max(verdict.claim.epsilon for verdict in found)
    for number, bound in enumerate(found[0].bounds):
        shown = sorted(verdict.bounds[number].epsilon for verdict in found)
        over = sum(epsilon > claimed for epsilon in shown)
        console.print(
            f"  {bound.estimator:<12} {shown[0]:.2f} to {shown[-1]:.2f}, ceiling "
            f"{bound.ceiling:.2f}; above the claim of {claimed:.2f} on {over}",
            highlight=False,
        )

    looks = Counter(
        check.what for each in every for check in each.checks if check.outcome == "VIOLATION"
    )
    console.print(f"  looks, {len(every[0].checks)} on each seed, that accuse: {dict(looks)}")


def main() -> None:
    """Run both studies and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--faulty", type=int, default=10)
    asked = parser.parse_args()
    for name, seeds, factor in (
        ("correct", asked.seeds, 1.0),
        ("half the noise", asked.faulty, 0.5),
        ("a quarter of it", asked.faulty, 0.25),
    ):
        started = time.perf_counter()
        report(name, audited(seeds, factor), time.perf_counter() - started)


if __name__ == "__main__":
    main()
