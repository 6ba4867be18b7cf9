"""What a private step costs beside a plain one: DP-SGD over SGD, each of one batch.

    python simulations/dp_step.py [MODEL ...]

Steps are those of `learning.dp.sgd.train` and of `learning.supervised.train`, in turns, on drawn
records of which each step takes all. Seconds are of this process on one thread, so that a busy
machine changes little; the median of each, and the noise's own share.
"""

import statistics
import sys
import time
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
from fedkd.privacy.mechanisms import gaussian
from fedkd.privacy.source import NoiseSource
from fedkd.tasks import Task, Vocabulary

BATCH, STEPS, REPETITIONS = 256, 4, 3
LENGTH = 64
"""Tokens of a text: a paragraph."""
WORDS = Vocabulary(size=4000, padding=0, start=2, end=3)
IMAGES: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp"},
    "lenet5": {"name": "lenet5"},
    "dense-cnn": {"name": "dense-cnn", "norm": "group"},
    "resnet8": {"name": "resnet8", "norm": "group"},
    "scattering": {"name": "scattering"},
}
TEXTS = ("bag", "bilstm", "encoder")
NOISE = sgd.Noise(noise_multiplier=1.0, clip=1.0, sample_rate=1.0, batch_size=BATCH)
HOW = Optimisation(epochs=STEPS, batch_size=BATCH, learning_rate=0.01)


def case(name: str) -> tuple[nn.Module, Samples, Task]:
    """A fresh model, records that it takes, and what is asked of it."""
    draws = torch.Generator().manual_seed(0)
    if name in IMAGES:
        shape: tuple[int, ...] = (1, 28, 28)
        x, y = torch.rand(BATCH, *shape, generator=draws), torch.randint(10, (BATCH,))
        names = tuple(map(str, range(10)))
        task = tasks.build(TaskChoice(), inputs=shape, names=names)
    else:
        x = torch.randint(4, WORDS.size, (BATCH, LENGTH), generator=draws)
        y = torch.randint(2, (BATCH,), generator=draws)
        task = tasks.build(
            TaskChoice(), inputs=(LENGTH,), names=("no", "yes"), vocabularies={"": WORDS}
        )
    spec = ModelSpec.model_validate(IMAGES.get(name, {"name": name}))
    classes = task.answer[-1]
    model = models.build(spec, shape=task.inputs, classes=classes, generator=draws, task=task)
    return model, Samples(x, y), task


def steps(name: str, *, private: bool) -> list[float]:
    """CPU seconds of each step but the first, which has all that comes before it."""
    model, samples, task = case(name)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    marks: list[float] = []
    optimiser.register_step_post_hook(lambda *_: marks.append(time.process_time()))
    if private:
        like = samples.x[:4]  # type: ignore[index]
        loss = task.likelihood.nll
        sgd.train(model, samples, HOW, NOISE, loss=loss, optimiser=optimiser, like=like)
    else:
        draws = torch.Generator().manual_seed(0)
        supervised.train(
            model, samples, HOW, draws, likelihood=task.likelihood, optimiser=optimiser
        )
    return [after - before for before, after in pairwise(marks)]


def noise(name: str) -> float:
    """CPU seconds of a step's noise."""
    model, *_ = case(name)
    values: list[Tensor] = [torch.zeros_like(each) for each in model.parameters()]
    source = NoiseSource()
    started = time.process_time()
    for each in values:
        gaussian(each, sensitivity=1.0, noise_multiplier=1.0, source=source, release=1e3)
    return time.process_time() - started


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    table = Table(
        "model", "numbers", "plain, ms", "private, ms", "of it noise, ms", "ratio", "without noise"
    )
    for name in sys.argv[1:] or [*IMAGES, *TEXTS]:
        plain, private, noises = list[float](), list[float](), list[float]()
        for _ in range(REPETITIONS):
            plain += steps(name, private=False)
            private += steps(name, private=True)
            noises.append(noise(name))
        a, b, c = (1e3 * statistics.median(each) for each in (plain, private, noises))
        size = sum(each.numel() for each in case(name)[0].parameters())
        table.add_row(
            name,
            f"{size:,}",
            f"{a:.1f}",
            f"{b:.1f}",
            f"{c:.1f}",
            f"{b / a:.2f}",
            f"{(b - c) / a:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
