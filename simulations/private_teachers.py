"""What a student is worth when its teachers are private: epsilon 1, 3, 8, and none.

    python simulations/private_teachers.py [--seeds 3] [--out runs/private-teachers]

Complete Fashion-MNIST, ten clients, plain Dirichlet 0.5, record-level DP at delta 1e-5, FedMD on a
proxy set of 5,000 held-out images. Teachers and student are linear in fixed features, the lever of
Tramer & Boneh 2021, arXiv:2011.11660: first-order scattering (log, centred, unit norm), rotated and
scaled by the principal components of the PROXY images, which are public. Nothing is fitted to
private or test data; what was tuned, was tuned on the proxy images' hidden labels, on seed 0.

A second part runs DENSE, one shot, at epsilon 8, on the images themselves.

A run that is there already is not run again.
"""

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from fedkd import config, data, rng
from fedkd.jobs.simulate import simulate
from fedkd.models.fixed.scattering import Scattering, ScatteringOptions
from fedkd.reports.display import Display

PROXY = 5000
COMPONENTS = 300
WHITENING = 0.7
"""Each component is divided by its variance to the power of half of this; 1 would whiten."""
NORM = 10 / 3
"""Of a sample's features; the linear layer's bias sees 1, and has its share of the clipped norm."""
BUDGETS = (1.0, 3.0, 8.0, None)
FIT = {
    "epochs": 30,
    "batch_size": 500,
    "optimiser": "adam",
    "learning_rate": 0.5,
    "schedule": "cosine",
}
"""How a linear model is fitted to the consensus: to convergence, as it is linear too."""
console = Console()


def scattered(images: torch.Tensor) -> torch.Tensor:
    """Images (N, 1, 28, 28) to log scattering features of norm 1 (N, 833)."""
    front = Scattering(ScatteringOptions(order=1))
    with torch.no_grad():
        return torch.cat([front(batch) for batch in images.split(500)])


def rotated(features: torch.Tensor, proxy: torch.Tensor) -> torch.Tensor:
    """Features (N, F) in the proxy's principal components: (N, COMPONENTS), of norm NORM."""
    mean = proxy.mean(dim=0)
    variances, axes = torch.linalg.eigh(torch.cov((proxy - mean).T.double()))
    variances, axes = variances.flip(0)[:COMPONENTS], axes.flip(1)[:, :COMPONENTS]
    weights = (axes * variances.clamp(min=1e-12) ** (-WHITENING / 2)).float()
    return NORM * torch.nn.functional.normalize((features - mean) @ weights)


def write_features(folder: Path, seed: int) -> tuple[Path, Path]:
    """The private and the proxy features as two .npz files."""
    private, proxy = folder / f"private-{seed}.npz", folder / f"proxy-{seed}.npz"
    if private.exists() and proxy.exists():
        return private, proxy
    dataset = data.load(config.Data(name="fashion-mnist"), seed=seed)
    cache = folder / "scattering.npz"
    if not cache.exists():
        with console.status("scattering 70,000 images, once"):
            train, test = scattered(dataset.train.x), scattered(dataset.test.x)
        np.savez(cache, train=train, test=test)
    with np.load(cache) as kept:
        train, test = torch.from_numpy(kept["train"]), torch.from_numpy(kept["test"])
    order = torch.randperm(len(train), generator=rng.stream(seed, purpose="proxy"))
    public, rest = order[:PROXY], order[PROXY:]
    train, test = rotated(train, train[public]), rotated(test, train[public])
    labels, y_test = dataset.train.y.numpy(), dataset.test.y.numpy()
    for path, rows in ((proxy, public), (private, rest)):
        np.savez(path, x_train=train[rows], y_train=labels[rows], x_test=test, y_test=y_test)
    return private, proxy


def fedmd(private: Path, proxy: Path, seed: int, epsilon: float | None) -> config.Experiment:
    """Ten rounds of three full-batch steps each."""
    linear = {"name": "mlp", "hidden": []}
    table = {
        "name": "private-fedmd",
        "seed": seed,
        "rounds": 10,
        "data": {
            "name": str(private),
            "public": {"source": str(proxy), "size": PROXY},
            "partition": {"scheme": "dirichlet", "alpha": 0.5},
        },
        "clients": {
            "count": 10,
            "models": [linear],
            "training": {"epochs": 3, "batch_size": 5500, "learning_rate": 1.5},
        },
        "student": {"model": linear},
        "method": {"name": "fedmd", "digest": FIT, "student": FIT},
    }
    if epsilon is not None:
        table["privacy"] = {"epsilon": epsilon, "sample_rate": 1.0, "clip": NORM}
    return config.parse(table)


def dense(_private: Path, _proxy: Path, seed: int, epsilon: float | None) -> config.Experiment:
    """One shot on the images themselves, the teachers linear in fixed scattering features."""
    table = {
        "name": "private-dense",
        "seed": seed,
        "data": {
            "name": "fashion-mnist",
            "partition": {"scheme": "dirichlet", "alpha": 0.5},
        },
        "clients": {
            "count": 10,
            "models": [{"name": "scattering"}],
            "training": {"epochs": 5, "batch_size": 600, "learning_rate": 8.0},
        },
        "student": {"model": "dense-cnn"},
        "method": {
            "name": "dense",
            "bn": 0.0,
            "average": "probabilities",
            "epochs": 15,
            "steps": 15,
            "batch_size": 96,
            "width": 16,
            "student_batch_size": 64,
            "student_learning_rate": 0.01,
        },
    }
    if epsilon is not None:
        table["privacy"] = {"epsilon": epsilon, "sample_rate": 0.1}
    return config.parse(table)


STUDY = [(fedmd, epsilon) for epsilon in BUDGETS] + [(dense, 8.0)]


def run(experiment: config.Experiment, folder: Path) -> dict:
    """The run's summary; a run that is finished is only read."""
    summary = folder / "summary.json"
    if not summary.exists():
        title = f"{folder.name}, seed {experiment.seed}"
        with Display(console, title=title, rounds=experiment.rounds) as display:
            simulate(experiment, folder, display, resume=folder.exists())
    return json.loads(summary.read_text(encoding="utf-8"))


def spread(values: list[float]) -> str:
    """Percentages as mean and sample standard deviation."""
    mean = 100 * statistics.mean(values)
    return f"{mean:.2f}" + (f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else "")


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/private-teachers"))
    parser.add_argument("--only", choices=("fedmd", "dense"), help="one part of the study")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    table = Table("method", "budget", "epsilon", "student", "teachers", "seconds")
    for build, budget in STUDY:
        if given.only not in (None, build.__name__):
            continue
        name = f"{build.__name__}-{'no-dp' if budget is None else f'{budget:g}'}"
        told = [
            run(build(*write_features(given.out, seed), seed, budget), given.out / f"{name}-{seed}")
            for seed in range(given.seeds)
        ]
        spent = max(each["privacy"].get("epsilon", float("inf")) for each in told)
        table.add_row(
            build.__name__,
            "-" if budget is None else f"{budget:g}",
            f"{spent:.4g}",
            spread([each["student"]["accuracy"] for each in told]),
            spread([each["teachers"]["mean_accuracy"] for each in told]),
            f"{statistics.mean(each['seconds'] for each in told):.0f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
