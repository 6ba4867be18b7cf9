"""What two sums a client are worth: accuracy by features, bytes and epsilon, for any partition.

    python simulations/analytic.py [--seeds 3] [--clients 10] [--out runs/analytic-study]

Complete Fashion-MNIST, `analytic`. Sums do not depend on who holds which record, so no partition is
drawn: a row without DP is that of every alpha and number of clients. Under DP each client adds its
own noise, and what is drawn here is what so many clients would add; record level, delta 1e-5,
add-remove, one release. The last rows have a proxy set of 2,000 images taken from training; what
was chosen (components, whitening, balance, shrinkage) was chosen on held-out training images.

Each front's features of all images are computed once and kept under --out.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fedkd import config, data, models, rng
from fedkd.data.types import Samples
from fedkd.knowledge.moments import Moments, moments, noise_norm, protected, ridge, total
from fedkd.learning.closed_form import Basis, features_of
from fedkd.methods.analytic import AnalyticParams
from fedkd.privacy import mechanisms
from fedkd.privacy.budget import Budget
from fedkd.privacy.calibration import noise_for
from fedkd.privacy.events import Gaussian
from fedkd.privacy.source import NoiseSource

PROXY = 2000
FRONTS = {
    "random-filters, 8": {"name": "random-filters", "filters": 8},
    "random-filters, 24": {"name": "random-filters", "filters": 24},
    "random-filters, 120": {"name": "random-filters", "filters": 120},
    "scattering": {"name": "scattering"},
}
BUDGETS, COMPONENTS = (1.0, 8.0), (None, 100, 200)
GIVEN = AnalyticParams()
console = Console()


def features(name: str, spec: dict, dataset: data.Dataset, folder: Path) -> tuple[Tensor, Tensor]:
    """Training and test features of a front, float32."""
    kept = folder / f"{name}.pt"
    if not kept.exists():
        model = models.build(
            config.ModelSpec.model_validate(spec),
            shape=(1, 28, 28),
            classes=10,
            generator=rng.stream(0, purpose="student"),
        )
        parts = tuple(features_of(model, part.x) for part in (dataset.train, dataset.test))
        torch.save(parts, kept)
    return torch.load(kept, weights_only=True)


def phi(x: Tensor, basis: Basis | None, clip: float | None) -> Tensor:
    """What is summed: features in a basis, clipped, the constant beside them; float64."""
    rows = x.double() if basis is None else (x.double() - basis.mean) @ basis.axes
    rows = rows if clip is None else mechanisms.clip(rows, clip)
    return F.pad(rows, (0, 1), value=GIVEN.intercept)


def sums(x: Tensor, y: Tensor, basis: Basis | None, clip: float | None) -> Moments:
    """The moments of all training records."""
    parts = zip(x.split(5000), y.split(5000), strict=True)
    return total(moments(phi(rows, basis, clip), labels, 10) for rows, labels in parts)


def accuracy(weights: Tensor, x: Tensor, test: Samples, basis: Basis | None) -> float:
    """Of the student, in percent; it does not clip."""
    return 100 * float(((phi(x, basis, None) @ weights).argmax(dim=1) == test.y).double().mean())


def noisy(exact: Moments, noise: float, clients: int) -> Tensor:
    """The weights after each client's own noise on its sums."""
    nothing = Moments(torch.zeros_like(exact.features), torch.zeros_like(exact.labels))
    told = {
        "bound": (1 + GIVEN.intercept**2) ** 0.5,
        "balance": GIVEN.balance,
        "noise_multiplier": noise,
    }
    source = NoiseSource()
    added = (protected(nothing, **told, source=source) for _ in range(clients))
    edge = noise_norm(len(exact.features), **told, releases=clients)
    return ridge(total([exact, *added]), GIVEN.shrinkage * edge)


def main() -> None:
    """Measure, and print the table row by row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/analytic-study"))
    parser.add_argument("--only", choices=("plain", "private"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    dataset = data.load(config.Data(name="fashion-mnist"), seed=0)
    table = Table("features", "width", "epsilon", "float64, a client", "test accuracy", "CPU s")

    def row(name: str, exact: Moments, budget: str, found: list[float], since: float) -> None:
        width = len(exact.labels)
        size = 8 * (width * (width + 1) // 2 + width * 10)
        spread = f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else ""
        told = f"{statistics.mean(found):.2f}{spread}", f"{time.process_time() - since:.0f}"
        table.add_row(name, str(width), budget, f"{size / 1000:,.0f} kB", *told)
        console.print(name, width, budget, *told)

    for name, spec in FRONTS.items() if given.only != "private" else ():
        since = time.process_time()
        train, test = features(name, spec, dataset, given.out)
        exact = sums(train, dataset.train.y, None, None)
        weights = ridge(exact, GIVEN.ridge * float(exact.features.diagonal().mean()))
        row(name, exact, "-", [accuracy(weights, test, dataset.test, None)], since)
    for components in COMPONENTS if given.only != "plain" else ():
        basis, held = None, slice(None)
        train, test = features("scattering", FRONTS["scattering"], dataset, given.out)
        if components is not None:
            held = slice(PROXY, None)
            basis = Basis.of(train[:PROXY], components=components, whitening=GIVEN.whitening)
        exact = sums(train[held], dataset.train.y[held], basis, 1.0)
        name = "scattering" + (f", {components} components" if components else "")
        for epsilon in BUDGETS:
            since = time.process_time()
            noise = noise_for(Budget(epsilon, 1e-5), lambda noise: [Gaussian("sums", noise)])
            found = [
                accuracy(noisy(exact, noise, given.clients), test, dataset.test, basis)
                for _ in range(given.seeds)
            ]
            row(name, exact, f"{epsilon:g}", found, since)
    console.print(table)


if __name__ == "__main__":
    main()
