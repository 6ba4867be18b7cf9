"""What private steps are worth: softmax regression on fixed features, by sums, under record DP.

    python simulations/summed_steps.py [--data fashion-mnist] [--seeds 3] [--epsilon 1 3 8]
        [--own-noise 10] [--held-out] [--out runs/summed-steps-study]

The complete set, `contrast-filters` with 1,600 components of norm 1, settings as in the rule of
docs/methods.md. A sum does not depend on who holds which record, so no partition is drawn: noise is
added once in all, as under secure aggregation, or that of `--own-noise` clients, each a release's.
Delta is 1e-5, record level, add-remove; noise multipliers are this project's PLD accountant's. The
seeds are draws of noise, which comes from the operating system: figures vary by those.

`--held-out` scores the last 10,000 training images in place of the test set, with noise as for all.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fedkd import config, data, models, rng
from fedkd.learning.closed_form import features_of
from fedkd.learning.softmax_regression import gradient, stepped
from fedkd.methods.summed_steps import SummedStepsParams
from fedkd.privacy import mechanisms
from fedkd.privacy.budget import Budget
from fedkd.privacy.calibration import noise_for
from fedkd.privacy.events import Gaussian
from fedkd.privacy.source import NoiseSource

HELD_OUT, COMPONENTS = 10_000, 1600
GIVEN = SummedStepsParams(records=60_000)
RULE = {1.0: (50, 0.7, 100.0), 3.0: (100, 0.7, 200.0), 8.0: (100, 1.0, 300.0)}
"""By epsilon: steps, clip, learning rate."""
console = Console()


def features(name: str, folder: Path) -> tuple[Tensor, Tensor]:
    """Training and test features of norm 1, float32."""
    kept = folder / f"{name}-{COMPONENTS}.pt"
    if not kept.exists():
        dataset = data.load(config.Data(name=name), seed=0)
        spec = {"name": "contrast-filters", "components": COMPONENTS, "unit_norm": True}
        model = models.build(
            config.ModelSpec.model_validate(spec),
            shape=tuple(dataset.train.x.shape[1:]),
            classes=10,
            generator=rng.stream(0, purpose="student"),
        )
        torch.save(
            tuple(features_of(model, part.x) for part in (dataset.train, dataset.test)), kept
        )
    return torch.load(kept, weights_only=True)


def descended(
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    clip: float,
    rate: float,
    noise: float | None,
    records: int,
) -> Tensor:
    """The averaged iterate; `noise` is the multiplier of each step's, None for steps without."""
    weights = torch.zeros(x.shape[1] + 1, 10).double()
    velocity, mean, source = torch.zeros_like(weights), torch.zeros_like(weights), NoiseSource()
    first = round((1 - GIVEN.average) * steps)
    for step in range(steps):
        told = weights.float().double()
        found = gradient(
            x, y, told, intercept=GIVEN.intercept, clip=None if noise is None else clip
        )
        found *= records / len(x)  # of a held-out run: the noise is as for all records
        if noise is not None:
            found = mechanisms.gaussian(
                found, sensitivity=clip, noise_multiplier=noise, source=source
            )
        weights, velocity = stepped(
            told, velocity, found / records, rate=rate, momentum=GIVEN.momentum
        )
        if step >= first:
            mean += (weights - mean) / (step - first + 1)
    return mean


def accuracy(weights: Tensor, x: Tensor, y: Tensor) -> float:
    """Of the last layer, in percent."""
    answers = x.double() @ weights[:-1] + GIVEN.intercept * weights[-1]
    return 100 * float((answers.argmax(dim=1) == y).double().mean())


def main() -> None:
    """Measure, and print the table row by row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epsilon", type=float, nargs="+", choices=sorted(RULE), default=[1, 3, 8])
    parser.add_argument("--own-noise", type=int, metavar="CLIENTS", help="no secure aggregation")
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/summed-steps-study"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    dataset = data.load(config.Data(name=given.data), seed=0)
    x, x_test = features(given.data, given.out)
    y, y_test = dataset.train.y, dataset.test.y
    records = len(x)
    if given.held_out:
        x, x_test, y, y_test = x[:-HELD_OUT], x[-HELD_OUT:], y[:-HELD_OUT], y[-HELD_OUT:]
    table = Table("epsilon", "steps", "clip", "rate", "noise", "kB up in all", "accuracy", "CPU s")
    for epsilon in (*map(float, given.epsilon), None):
        since = time.process_time()
        steps, clip, rate = RULE[epsilon or 8.0]
        noise = epsilon and noise_for(
            Budget(epsilon, 1e-5), lambda noise, steps=steps: [Gaussian("sums", noise, steps=steps)]
        )
        more = (given.own_noise or 1) ** 0.5
        how = {"steps": steps, "clip": clip, "rate": rate, "records": records}
        found = [
            accuracy(descended(x, y, noise=noise and more * noise, **how), x_test, y_test)
            for _ in range(given.seeds if epsilon else 1)
        ]
        spread = f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else ""
        size = (4 if given.own_noise else 8) * steps * (COMPONENTS + 1) * 10 / 1000
        row = (
            f"{epsilon:g}" if epsilon else "-",
            str(steps),
            f"{clip:g}",
            f"{rate:g}",
            f"{noise:.3f}" if noise else "-",
            f"{size:,.0f}",
            f"{statistics.mean(found):.2f}{spread}",
            f"{time.process_time() - since:.0f}",
        )
        table.add_row(*row)
        console.print(*row)
    console.print(table)


if __name__ == "__main__":
    main()
