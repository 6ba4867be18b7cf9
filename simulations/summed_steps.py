"""What private steps are worth: softmax regression on fixed features, by sums, under record DP.

    python simulations/summed_steps.py [--data fashion-mnist] [--draws 3] [--epsilon 1 3 8]
        [--own-noise 10] [--components 1600] [--held-out] [--out runs/summed-steps-study]

The complete set, `contrast-filters` with features of norm 1, settings as in the rule of
docs/methods.md. A sum does not depend on who holds which record, so no partition is drawn: noise is
added once in all, as under secure aggregation of ten clients, each of whom rounds its part to 16
bits; or that of `--own-noise` clients, each a release's. Delta is 1e-5, record level, add-remove;
noise multipliers are this project's PLD accountant's. All draws of noise go side by side, in
float32, and come from a seed: nobody's data is protected here.

`--held-out` scores the last 10,000 training images in place of the test set, with noise as for all.
`--steps`, `--clip`, `--rate` and `--momentum` try out others than the rule's.
"""

import argparse
import math
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fedkd import config, data, models, rng
from fedkd.learning.closed_form import features_of
from fedkd.learning.softmax_regression import stepped
from fedkd.methods.core.sums import shortened
from fedkd.methods.summed_steps import CENTRED, SummedStepsParams
from fedkd.privacy.budget import Budget
from fedkd.privacy.calibration import noise_for
from fedkd.privacy.events import Gaussian

HELD_OUT, CLIENTS, ROWS = 10_000, 10, 10_000
GIVEN = SummedStepsParams(records=60_000)
console = Console()


@dataclass(frozen=True)
class Steps:
    """How one row of the table descends."""

    steps: int
    clip: float = 0.4
    rate: float = CENTRED
    momentum: float = GIVEN.momentum


RULE = {1.0: Steps(50), 3.0: Steps(100), 8.0: Steps(100)}
"""By epsilon, where noise is added once in all."""
ALONE = {1.0: Steps(40, rate=100.0, momentum=0.9), 3.0: Steps(50), 8.0: Steps(50)}
"""By epsilon, where each client adds its own."""


def features(name: str, components: int, folder: Path) -> tuple[Tensor, Tensor]:
    """Training and test features of norm 1, float32."""
    kept = folder / f"{name}-{components}.pt"
    if not kept.exists():
        dataset = data.load(config.Data(name=name), seed=0)
        spec = {"name": "contrast-filters", "components": components, "unit_norm": True}
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


def gradients(x: Tensor, y: Tensor, weights: Tensor, clip: float | None) -> Tensor:
    """As `softmax_regression.gradient`, for several weights (F + 1, K, C) and x of norm 1."""
    total = torch.zeros_like(weights)
    for rows, labels in zip(torch.split(x, ROWS), torch.split(y, ROWS), strict=True):
        phi = F.pad(rows, (0, 1), value=GIVEN.intercept)
        answers = (phi @ weights.flatten(1)).unflatten(1, weights.shape[1:])
        wrong = answers.softmax(dim=2) - F.one_hot(labels, weights.shape[2])[:, None]
        if clip is not None:
            length = wrong.norm(dim=2) * phi.norm(dim=1)[:, None]
            wrong *= (clip / length.clamp(min=1e-9)).clamp(max=1)[..., None]
        total += (phi.T @ wrong.flatten(1)).view_as(total)
    return total


def noisy(exact: Tensor, deviation: float, own: int | None, draws: torch.Generator) -> Tensor:
    """The sum with noise on it: `own` releases', or one that ten clients' 16 bits add up to."""
    if own is not None:
        return exact + deviation * math.sqrt(own) * torch.randn(exact.shape, generator=draws)
    share = deviation / math.sqrt(CLIENTS)
    step = 2.0 ** math.floor(math.log2(share / 3))
    parts = [exact, *[torch.zeros(())] * (CLIENTS - 1)]
    sent = [
        shortened(part + share * torch.randn(exact.shape, generator=draws), step) for part in parts
    ]
    return step * torch.stack(sent).sum(dim=0, dtype=torch.int16).float()


def descended(
    x: Tensor, y: Tensor, how: Steps, *, noise: float | None, own: int | None, draws: int
) -> Tensor:
    """The last iterates (F + 1, K, C), one for each draw of noise; None: without noise and clip."""
    records = GIVEN.records or 1
    weights = torch.zeros(x.shape[1] + 1, draws, 10)
    velocity, generator = torch.zeros_like(weights), torch.Generator().manual_seed(0)
    for _ in range(how.steps):
        found = gradients(x, y, weights, None if noise is None else how.clip)
        found *= records / len(x)  # of a held-out run: the noise is as for all records
        if noise is not None:
            found = noisy(found, noise * how.clip, own, generator)
        weights, velocity = stepped(
            weights, velocity, found / records, rate=how.rate, momentum=how.momentum
        )
    return weights


def accuracies(weights: Tensor, x: Tensor, y: Tensor) -> list[float]:
    """Of each last layer, in percent."""
    answers = F.pad(x, (0, 1), value=GIVEN.intercept) @ weights.flatten(1)
    right = answers.unflatten(1, weights.shape[1:]).argmax(dim=2) == y[:, None]
    found: list[float] = (100 * right.double().mean(dim=0)).tolist()
    return found


def main() -> None:
    """Measure, and print the table row by row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--epsilon", type=float, nargs="*", choices=sorted(RULE), default=[1, 3, 8])
    parser.add_argument("--own-noise", type=int, metavar="CLIENTS", help="no secure aggregation")
    parser.add_argument("--components", type=int, default=1600)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--without-noise", action="store_true", help="a row more")
    parser.add_argument("--out", type=Path, default=Path("runs/summed-steps-study"))
    for name, kind in (("steps", int), ("clip", float), ("rate", float), ("momentum", float)):
        parser.add_argument(f"--{name}", type=kind)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    dataset = data.load(config.Data(name=given.data), seed=0)
    x, x_test = features(given.data, given.components, given.out)
    y, y_test = dataset.train.y, dataset.test.y
    if given.held_out:
        x, x_test, y, y_test = x[:-HELD_OUT], x[-HELD_OUT:], y[:-HELD_OUT], y[-HELD_OUT:]
    table = Table("epsilon", "steps", "clip", "rate", "noise", "MB up", "accuracy", "CPU s")
    named = ("steps", "clip", "rate", "momentum")
    own = {name: getattr(given, name) for name in named if getattr(given, name) is not None}
    for epsilon in (*map(float, given.epsilon), *([None] if given.without_noise else [])):
        since = time.process_time()
        how = replace((ALONE if given.own_noise else RULE)[epsilon or 8.0], **own)
        noise = epsilon and noise_for(
            Budget(epsilon, 1e-5),
            lambda noise, steps=how.steps: [Gaussian("sums", noise, steps=steps)],
        )
        draws = given.draws if epsilon else 1
        weights = descended(x, y, how, noise=noise, own=given.own_noise, draws=draws)
        found = accuracies(weights, x_test, y_test)
        spread = f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else ""
        row = (
            f"{epsilon:g}" if epsilon else "-",
            str(how.steps),
            f"{how.clip:g}",
            f"{how.rate:g}",
            f"{noise:.3f}" if noise else "-",
            f"{2 * how.steps * (given.components + 1) * 10 / 1e6:.1f}",
            f"{statistics.mean(found):.2f}{spread} ({', '.join(f'{each:.2f}' for each in found)})",
            f"{time.process_time() - since:.0f}",
        )
        table.add_row(*row)
        console.print(*row)
    console.print(table)


if __name__ == "__main__":
    main()
