"""Privileged pixels on MNIST: the teacher sees 28x28, the student 7x7.

    python simulations/lopez_paz.py [--seeds 10] [--out runs/lopez-paz]

Lopez-Paz et al. 2016, arXiv:1511.03643, section 6, with the set-up of the authors' code: 300 or 500
samples for teacher and student alike, the whole test set, networks of two hidden layers of 20 ReLU
(Glorot's weights, zero biases), 50 epochs in batches of 128 by RMSprop as Keras had it in 2015. The
7x7 pixels are bilinear with antialiasing, a triangle of four pixels on either side, as Pillow's.

Temperature and imitation are chosen on 2,000 further training images, by their accuracy over all
seeds. Beside that stand the published choice and, as the paper reports, the best on the test set.
Fifty epochs are a few hundred steps, in which no student has converged: the last rows show
what both are worth after ten times as many.

A seed that is there already is not run again.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from fedkd import config, data, rng
from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.files import write_atomically
from fedkd.learning import evaluate, supervised
from fedkd.learning.ways import generalised
from fedkd.learning.ways.generalised import SightedTeacher

SIZES = (300, 500)
PUBLISHED = {300: (20, 0.1, 47.0, 65.6, 80.1), 500: (20, 0.6, 58.9, 74.3, 83.6)}
"""T, imitation, student alone, privileged, teacher; accuracies are means of the authors' log."""
GRID = [(t, share) for t in (1, 2, 5, 10, 20, 50) for share in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)]
HELD_OUT = 2000
SHORT = Optimisation(epochs=50, batch_size=128, learning_rate=1e-3)
LONG = Optimisation(epochs=500, batch_size=128, learning_rate=1e-3)
ALONE = "alone"
console = Console()


class RMSprop(torch.optim.Optimizer):
    """Hinton's RMSprop as in Keras 0.3: decay 0.9, and epsilon inside the root."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), {"lr": SHORT.learning_rate})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step."""
        for group in self.param_groups:
            for weight in group["params"]:
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                mean.mul_(0.9).addcmul_(weight.grad, weight.grad, value=0.1)
                weight.sub_(group["lr"] * weight.grad / (mean + 1e-6).sqrt())


def network(inputs: int, generator: torch.Generator) -> nn.Module:
    """Two hidden layers of 20 ReLU."""
    sizes = (inputs, 20, 20, 10)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(sizes):
        linear = nn.Linear(before, after)
        nn.init.xavier_uniform_(linear.weight, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def small(samples: Samples) -> Samples:
    """28x28 pixels to 7x7."""
    x = F.interpolate(samples.x, size=(7, 7), mode="bilinear", antialias=True)
    return Samples(x, samples.y)


def run(train: Samples, test: Samples, size: int, seed: int) -> dict:
    """One draw of samples: accuracies by cell, each on held-out training images and on the test."""
    order = torch.randperm(len(train), generator=rng.stream(seed, purpose=f"samples-{size}"))
    mine, held_out = train.subset(order[:size]), train.subset(order[size : size + HELD_OUT])
    sets = [small(held_out), small(test)]
    draws = rng.stream(seed, purpose=f"networks-{size}")
    teacher = network(28 * 28, draws)
    supervised.train(teacher, mine, SHORT, draws, optimiser=RMSprop(teacher))
    witness = SightedTeacher(teacher, mine.x, torch.ones(size, dtype=torch.bool))

    def learn(teach: Callable[[nn.Module, torch.optim.Optimizer], object]) -> list[float]:
        student = network(7 * 7, draws)
        teach(student, RMSprop(student))
        return [evaluate.accuracy(student, each) for each in sets]

    def alone(how: Optimisation) -> list[float]:
        return learn(
            lambda student, optimiser: supervised.train(
                student, small(mine), how, draws, optimiser=optimiser
            )
        )

    def taught(how: Optimisation, temperature: float, imitation: float) -> list[float]:
        return learn(
            lambda student, optimiser: generalised.distil(
                student,
                small(mine),
                [witness],
                how,
                draws,
                imitation=imitation,
                temperature=temperature,
                optimiser=optimiser,
            )
        )

    cells = {ALONE: alone(SHORT), f"{ALONE} long": alone(LONG)}
    cells |= {f"{t} {share}": taught(SHORT, t, share) for t, share in GRID}
    t, share, *_ = PUBLISHED[size]
    cells[f"{t} {share} long"] = taught(LONG, t, share)
    return {"teacher": evaluate.accuracy(teacher, test), "cells": cells}


def report(table: Table, size: int, runs: list[dict]) -> None:
    """The rows of one sample size."""

    def mean(cell: str, part: int) -> float:
        return statistics.mean(run["cells"][cell][part] for run in runs)

    def row(name: str, cell: str, published: float | None = None) -> None:
        values = [100 * run["cells"][cell][1] for run in runs]
        gains = [v - 100 * run["cells"][base][1] for v, run in zip(values, runs, strict=True)]
        base_row = cell == base
        table.add_row(
            str(size), name, spread(values), "" if base_row else spread(gains), said(published)
        )

    base = ALONE
    grid = [f"{t} {share}" for t, share in GRID]
    t, share, alone, taught, teacher = PUBLISHED[size]
    sees = [100 * run["teacher"] for run in runs]
    table.add_row(str(size), "teacher, 28x28", spread(sees), "", said(teacher))
    row("student alone, 7x7", ALONE, alone)
    chosen = max(grid, key=lambda cell: mean(cell, 0))
    row("privileged, " + words(chosen) + ", chosen on held-out", chosen)
    row("privileged, " + words(f"{t} {share}") + ", as published", f"{t} {share}", taught)
    best = max(grid, key=lambda cell: mean(cell, 1))
    row("privileged, " + words(best) + ", best on test", best)
    base = f"{ALONE} long"
    row("student alone, 500 epochs", base)
    row("privileged, " + words(f"{t} {share}") + ", 500 epochs", f"{t} {share} long")
    table.add_section()


def words(cell: str) -> str:
    """`"20 0.1"` as it is printed."""
    t, share = cell.split()
    return f"T {t}, l {share}"


def said(value: float | None) -> str:
    """A published accuracy."""
    return "" if value is None else f"{value:.1f}"


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation."""
    mean = f"{statistics.mean(values):.1f}"
    return mean + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/lopez-paz"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    dataset = data.load(config.Data(name="mnist"), seed=0)
    table = Table("samples", "model", "accuracy", "gain over alone", "published")
    jobs = [(size, seed) for size in SIZES for seed in range(given.seeds)]
    for size, seed in track(jobs, description="seeds", console=console):
        path = given.out / f"{size}-{seed}.json"
        if not path.exists():
            found = run(dataset.train, dataset.test, size, seed)
            write_atomically(path, json.dumps(found))
    for size in SIZES:
        paths = [given.out / f"{size}-{seed}.json" for seed in range(given.seeds)]
        report(table, size, [json.loads(path.read_text(encoding="utf-8")) for path in paths])
    console.print(table)


if __name__ == "__main__":
    main()
