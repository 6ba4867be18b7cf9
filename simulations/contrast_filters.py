"""What one message of sums is worth on contrast-normalised random filters: accuracy by bytes.

    python simulations/contrast_filters.py [--data fashion-mnist mnist] [--components 2225 3130]
        [--clients 10] [--out runs/contrast-filters-study]

Complete sets, `analytic` with `precision = "float16"` and both heads, and SAFLe's buckets. Clients
hold one class each where there are ten of them, the most skewed partition there is: sums do not
depend on it but for float16's rounding. The penalty was chosen on the last 10,000 training images
(`--held-out` shows them in place of the test set, and scores every share of `SHARES`).

Each set's features are computed once and kept under --out: 0.9 GB at 3,130 components. Fewer
components are the first of them.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fedkd import config, data, models, rng
from fedkd.knowledge.moments import (
    Moments,
    correlated,
    discriminant,
    moments,
    penalty_of,
    restored,
    ridge,
    total,
)
from fedkd.learning.closed_form import features_of
from fedkd.models.fixed.buckets import Buckets, quantiles

INTERCEPT, CHOSEN = 0.3, 3e-3
SHARES = (1e-3, 3e-3, 1e-2)
HELD_OUT = 10_000
BUCKETED, THRESHOLDS, GROUP = 700, 1, 4
console = Console()


def features(name: str, components: int, folder: Path) -> tuple[Tensor, Tensor]:
    """Training and test features, float32; those of drawn shapes are not needed again."""
    kept = folder / f"{name}-{components}.pt"
    if not kept.exists():
        dataset = data.load(config.Data(name=name), seed=0)
        since = time.process_time()
        spec = {"name": "contrast-filters", "components": components}
        model = models.build(
            config.ModelSpec.model_validate(spec),
            shape=tuple(dataset.train.x.shape[1:]),
            classes=10,
            generator=rng.stream(0, purpose="student"),
        )
        torch.save(
            tuple(features_of(model, part.x) for part in (dataset.train, dataset.test)), kept
        )
        console.print(f"{name}: basis and features, {time.process_time() - since:.0f} CPU s")
    return torch.load(kept, weights_only=True)


def of_client(x: Tensor, y: Tensor) -> Moments:
    """What a client's sums are once they crossed the wire."""
    exact: Moments | None = None
    for part, own in zip(x.split(2048), y.split(2048), strict=True):
        phi = F.pad(part, (0, 1), value=INTERCEPT)
        more = moments(phi, own, 10, dtype=torch.float32)
        exact = more if exact is None else Moments(*map(torch.add, exact, more))
    assert exact is not None
    return restored(correlated(exact), INTERCEPT)


def accuracy(weights: Tensor, x: Tensor, y: Tensor) -> float:
    """Of the last layer, in percent."""
    answers = F.pad(x, (0, 1), value=INTERCEPT) @ weights.float()
    return 100 * float((answers.argmax(dim=1) == y).double().mean())


def main() -> None:
    """Measure, and print the table row by row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["fashion-mnist", "mnist"])
    parser.add_argument("--components", type=int, nargs="+", default=[2690, 3130])
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/contrast-filters-study"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    table = Table("data", "features", "head", "share", "MB a client", "accuracy", "CPU s")
    for name in given.data:
        dataset = data.load(config.Data(name=name), seed=0)
        x, x_test = features(name, max(given.components), given.out)
        y, y_test = dataset.train.y, dataset.test.y
        if given.held_out:
            x, x_test, y, y_test = x[:-HELD_OUT], x[-HELD_OUT:], y[:-HELD_OUT], y[-HELD_OUT:]
        fronts = {str(width): (x[:, :width], x_test[:, :width]) for width in given.components}
        # Thresholds of the training features in place of shapes': a study may, a run does not.
        draws = rng.stream(0, purpose="groups of buckets")
        buckets = Buckets(quantiles(x[:3000, :BUCKETED], THRESHOLDS), GROUP, draws)
        fronts[f"{buckets.width} buckets"] = tuple(
            torch.cat([buckets(part) for part in each[:, :BUCKETED].split(5000)])
            for each in (x, x_test)
        )
        for front, (train, test) in fronts.items():
            since = time.process_time()
            owner = y % given.clients
            sums = total(
                of_client(train[owner == client], y[owner == client])
                for client in range(given.clients)
            )
            width = train.shape[1]
            size = width * (width - 1) + 4 * width + 40 * (width + 1)
            for head in ("ridge", "lda"):
                for share in SHARES if given.held_out else (CHOSEN,):
                    penalty = penalty_of(sums, share)
                    weights = (
                        ridge(sums, penalty, quickly=True)
                        if head == "ridge"
                        else discriminant(sums, penalty, INTERCEPT, quickly=True)
                    )
                    found = f"{accuracy(weights, test, y_test):.2f}"
                    spent = f"{time.process_time() - since:.0f}"
                    row = (name, front, head, f"{share:g}", f"{size / 1e6:.2f}", found, spent)
                    table.add_row(*row)
                    console.print(*row)
    console.print(table)


if __name__ == "__main__":
    main()
