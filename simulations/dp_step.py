"""What a private step costs beside a plain one, for each built-in model: DP-SGD over SGD, in turns.

    python simulations/dp_step.py [MODEL ...]

Steps are those of `learning.dp.sgd.train` and of `learning.supervised.train`, on drawn
records of which each step takes all. Seconds are of this process on one thread, so that a busy
machine changes little; the median of each, and the noise's own share. Layers without a rule of
their own, which take the long way, are named.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from fedkd import models, tasks
from fedkd.config import ModelSpec, Optimisation, TaskChoice
from fedkd.data.types import Samples
from fedkd.learning import supervised
from fedkd.learning.dp import sgd
from fedkd.learning.dp.per_sample import has_rule
from fedkd.privacy.source import NoiseSource
from fedkd.tasks import Targets, Task, Vocabulary

STEPS, REPETITIONS = 4, 3
LENGTH, SHORT = 64, 32
"""Tokens of a text: a paragraph; where each is answered: a sentence."""
ITEMS = 500
WORDS = Vocabulary(size=4000, padding=0, start=2, end=3)


@dataclass(frozen=True)
class Case:
    """What a model is measured on: records drawn for its task."""

    task: str = "classification"
    targets: Targets | None = None
    """Of texts."""
    batch: int = 256
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    "mlp": Case(),
    "lenet5": Case(),
    "dense-cnn": Case(options={"norm": "group"}),
    "resnet8": Case(options={"norm": "group"}),
    "scattering": Case(),
    "random-filters": Case(),
    "mult-dae": Case("recommendation"),
    "two-tower": Case("recommendation"),
    "unet": Case("segmentation", batch=64),
    "hourglass": Case("keypoints", batch=64),
    "centre-point": Case("detection", batch=64),
    "bag": Case(targets="classes"),
    "bilstm": Case(targets="classes"),
    "encoder": Case(targets="classes"),
    "causal-transformer": Case(targets="next-tokens", batch=32),
    "gru-seq2seq": Case(targets="tokens", batch=32),
    "transformer-seq2seq": Case(targets="tokens", batch=32),
}


def case(name: str) -> tuple[nn.Module, Samples, Task]:
    """A fresh model, records that it takes, and what is asked of it."""
    found, draws = CASES[name], torch.Generator().manual_seed(0)
    samples, task = (texts if found.targets else numbers)(found, draws)
    spec = ModelSpec.model_validate({"name": name, **found.options})
    model = models.build(spec, shape=task.inputs, classes=task.classes, generator=draws, task=task)
    return model, samples, task


def numbers(found: Case, draws: torch.Generator) -> tuple[Samples, Task]:
    """Images of one channel and 28x28 pixels, 32x32 where each place is answered; or histories."""
    side, count = 28 if found.task == "classification" else 32, found.batch
    names = [f"i{n}" for n in range(ITEMS if found.task == "recommendation" else 10)]
    shape: tuple[int, ...] = (ITEMS,) if found.task == "recommendation" else (1, side, side)
    task = tasks.build(TaskChoice(name=found.task), inputs=shape, names=names)

    def whole(most: int, *size: int) -> Tensor:
        return torch.randint(most, (count, *size), generator=draws)

    def boxes() -> Tensor:
        corner = torch.rand(count, 3, 2, generator=draws) * side / 2
        return torch.cat([whole(10, 3, 1), corner, corner + side / 4], dim=2)

    def points() -> Tensor:
        places = torch.rand(count, 10, 2, generator=draws) * side
        return torch.cat([places, torch.ones(count, 10, 1)], dim=2)

    targets: dict[str, Callable[[], Tensor]] = {
        "classification": lambda: whole(10),
        "recommendation": lambda: whole(2, ITEMS),
        "segmentation": lambda: whole(10, side, side),
        "detection": boxes,
        "keypoints": points,
    }
    x = (whole(20, ITEMS) == 0).float() if found.task == "recommendation" else None
    x = torch.rand(count, *shape, generator=draws) if x is None else x
    return Samples(x, targets[found.task]()), task


def texts(found: Case, draws: torch.Generator) -> tuple[Samples, Task]:
    """Texts of a class, or of which each token is answered."""
    short, each = SHORT, found.targets != "classes"
    inputs = {"tokens": 2 * short - 1, "next-tokens": short - 1}.get(str(found.targets), LENGTH)
    x = torch.randint(4, WORDS.size, (found.batch, inputs), generator=draws)
    shape = (short - 1,) if each else ()
    y = torch.randint(WORDS.size if each else 2, (found.batch, *shape), generator=draws)
    task = tasks.build(
        TaskChoice(), inputs=(inputs,), names=("no", "yes"), vocabularies={"": WORDS}
    )
    answer = (*shape, WORDS.size if each else 2)
    return Samples(x, y), replace(task, targets=found.targets or "classes", answer=answer)


def steps(name: str, *, private: bool) -> list[float]:
    """CPU seconds of each step but the first, which has all that comes before it."""
    model, samples, task = case(name)
    batch = CASES[name].batch
    how = Optimisation(epochs=STEPS, batch_size=batch, learning_rate=1e-4, momentum=0.0)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4)
    marks: list[float] = []
    optimiser.register_step_post_hook(lambda *_: marks.append(time.process_time()))
    if private:
        noise = sgd.Noise(noise_multiplier=1.0, clip=1.0, sample_rate=1.0, batch_size=batch)
        like = samples.x[:4]  # type: ignore[index]
        loss = task.likelihood.nll
        sgd.train(model, samples, how, noise, loss=loss, optimiser=optimiser, like=like)
    else:
        draws = torch.Generator().manual_seed(0)
        supervised.train(
            model, samples, how, draws, likelihood=task.likelihood, optimiser=optimiser
        )
    return [after - before for before, after in pairwise(marks)]


def noise(name: str) -> list[float]:
    """CPU seconds of a step's noise."""
    model, *_ = case(name)
    sums = [torch.zeros_like(each) for each in model.parameters() if each.requires_grad]
    source, spent = NoiseSource(), list[float]()
    for _ in range(STEPS):
        started = time.process_time()
        sgd._protected(sums, sgd.Noise(1.0, 1.0, 1.0, 1), source)
        spent.append(time.process_time() - started)
    return spent[1:]


def long_way(model: nn.Module) -> str:
    """The kinds of layers that learn and have no rule of their own."""
    own = [layer for layer in model.modules() if any(True for _ in layer.parameters(recurse=False))]
    return ", ".join(sorted({type(layer).__name__ for layer in own if not has_rule(layer)}))


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    table = Table(
        "model", "batch", "numbers", "plain, ms", "private, ms", "of it noise, ms", "ratio",
        "without noise", "the long way",
    )  # fmt: skip
    for name in sys.argv[1:] or CASES:
        plain, private, noises = list[float](), list[float](), list[float]()
        for _ in range(REPETITIONS):
            plain += steps(name, private=False)
            private += steps(name, private=True)
            noises += noise(name)
        a, b, c = (1e3 * statistics.median(each) for each in (plain, private, noises))
        model, *_ = case(name)
        size = sum(each.numel() for each in model.parameters() if each.requires_grad)
        table.add_row(
            name,
            str(CASES[name].batch),
            f"{size:,}",
            f"{a:.1f}",
            f"{b:.1f}",
            f"{c:.1f}",
            f"{b / a:.2f}",
            f"{(b - c) / a:.2f}",
            long_way(model),
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
