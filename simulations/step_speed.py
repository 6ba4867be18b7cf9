"""What a step of training and an answer cost, by how images are laid out and batches are halved.

    python simulations/step_speed.py

CPU seconds of one thread, medians in turns, so other work beside it does not count. A step in
halves takes as long as the busier of its two threads and what is done for both.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from fedkd import config, rng
from fedkd.knowledge import label
from fedkd.learning import evaluate, offline
from fedkd.learning.halves import Halves
from fedkd.models import call
from fedkd.models.classifiers import (
    DenseCNNOptions,
    NoOptions,
    ResNetOptions,
    dense_cnn,
    lenet5,
    resnet8,
)  # fmt: skip
from fedkd.rng import torch_default
from fedkd.threads import one_intra_op_thread, tune_allocator

SHAPE, CLASSES, REPETITIONS, STEPS = (1, 28, 28), 10, 5, 2
MODELS: dict[str, Callable[[], nn.Module]] = {
    "lenet5": lambda: lenet5(SHAPE, CLASSES, NoOptions()),
    "dense-cnn": lambda: dense_cnn(SHAPE, CLASSES, DenseCNNOptions()),
    "dense-cnn, group": lambda: dense_cnn(SHAPE, CLASSES, DenseCNNOptions(norm="group")),
    "resnet8": lambda: resnet8(SHAPE, CLASSES, ResNetOptions()),
    "resnet8, group": lambda: resnet8(SHAPE, CLASSES, ResNetOptions(norm="group")),
}


def usual(_model: nn.Module, _device: torch.device) -> torch.memory_format:
    """The layout of torch's own, whatever the model."""
    return torch.preserve_format


def last(_model: nn.Module, _device: torch.device) -> torch.memory_format:
    """Channels last, whatever the model."""
    return torch.channels_last


def learn(model: nn.Module, rows: tuple[Tensor, Tensor], threads: int | None) -> None:
    """One epoch of distillation in batches of 128."""
    how = config.Optimisation(epochs=1, batch_size=128, learning_rate=1e-3)
    loss = partial(label.kd, temperature=4.0)
    offline.distil(model, *rows, loss, how, rng.stream(0, purpose="batches"), threads=threads)


def cpu(work: Callable[[], Any]) -> float:
    """CPU seconds of this thread."""
    started = time.thread_time()
    work()
    return time.thread_time() - started


@contextmanager
def by_thread() -> Iterator[dict[int, float]]:
    """CPU seconds that halves take, by thread, filled as they end."""
    spent: dict[int, float] = {}
    plain = Halves._work

    def timed(*arguments: Any) -> Any:
        started = time.thread_time()
        try:
            return plain(*arguments)
        finally:
            here = threading.get_ident()
            spent[here] = spent.get(here, 0.0) + time.thread_time() - started

    with mock.patch.object(Halves, "_work", timed):
        yield spent


def measured(make: Callable[[], nn.Module]) -> list[float]:
    """Milliseconds: a step usual, last, in halves, halves' CPU; 1,000 answers usual, last."""
    with torch_default(rng.stream(0, purpose="model")):
        model = make()
    rows = torch.rand(128 * STEPS, *SHAPE), torch.randn(128 * STEPS, CLASSES)
    found: list[list[float]] = [[] for _ in range(6)]
    for _ in range(1 + REPETITIONS):
        for place, layout in enumerate((usual, last)):
            with mock.patch.object(call, "layout", layout):
                found[place].append(cpu(lambda: learn(model, rows, None)) / STEPS)
                found[4 + place].append(
                    cpu(lambda: evaluate.answers(model, rows[0])) * 1000 / len(rows[0])
                )
        with by_thread() as spent:
            own = cpu(lambda: learn(model, rows, 2))
        found[2].append((own + max(spent.values())) / STEPS)
        found[3].append((own + sum(spent.values())) / STEPS)
    return [1000 * statistics.median(each[1:]) for each in found]


def main() -> None:
    """Print the table."""
    table = Table(
        "model", "step of 128, usual", "channels last", "in halves", "its CPU",
        "1,000 answers, usual", "channels last",
    )  # fmt: skip
    tune_allocator()
    with one_intra_op_thread():
        for name, make in MODELS.items():
            table.add_row(name, *(f"{ms:.1f}" for ms in measured(make)))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
