"""The one training loop."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from fedkd import devices
from fedkd.config import Optimisation
from fedkd.data.texts.batches import by_length
from fedkd.errors import FederationError
from fedkd.learning import augment, optim
from fedkd.learning.halves import halves
from fedkd.rows import Rows, one
from fedkd.rows import moved as moved_to
from fedkd.tasks.motion import Motion

OnEpoch = Callable[[int, float], None]
"""Called after each epoch with its number, from 1, and its mean loss."""

_COLD = 0.01
"""By what a rate is multiplied in the first step of a warm-up, as in torchvision's references."""

Moved = Callable[[Tensor, Motion], Tensor]
"""Targets and how their images moved to targets that moved along: see `Likelihood.moved`."""

Step = Callable[[float, Sequence[Any]], float]
"""Learns from one batch of each of the rows, a tensor unless they are tables, and returns the loss;
the number says how many epochs are done, such as 2.25."""


def fit(
    model: nn.Module,
    rows: Sequence[Rows],
    loss: Callable[..., Tensor],
    optimisation: Optimisation,
    generator: torch.Generator,
    *,
    optimiser: torch.optim.Optimizer | None = None,
    moved: Moved | None = None,
    threads: int | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """Fit `model` to `rows` in shuffled mini-batches; it ends in evaluation mode.

    The rows are on the CPU, and each batch goes to the device where the model is.

    Of texts the rows of a batch are of like length. A trailing batch of one row is left out unless
    it is all there is: BatchNorm cannot train on it.

    Args:
        model: trained in place.
        rows: of equal length N >= 1, such as inputs and labels; a batch at a time is read.
            The first are the inputs, which `optimisation.augment` changes.
        loss: called with the model and a batch of each of the rows; a scalar or a value per row, of
            which the mean is minimised.
        optimisation: epochs, batch size, learning rate and schedule, changes of inputs.
        generator: the source of the shuffles, and of how inputs change.
        optimiser: goes on with this one; None: a fresh one over all parameters.
        moved: how the second of the rows, the targets, follow inputs that move; None: they do not.
        threads: let so many threads at a time learn from halves of large batches, to the same bits
            whatever their number: see `halves`. Then `loss` gives each row's own value. None:
            batches stay whole.
        on_epoch: see `OnEpoch`.

    Returns:
        The mean loss of each epoch.

    Raises:
        ValueError: there are no rows, or not equally many.
        FederationError: the loss is no longer finite.
    """
    optimiser = optimiser or optim.build(model.parameters(), optimisation)

    model.train()
    device = devices.of(model)
    with halves(model, threads) as both:

        def mean(batch: Sequence[Any]) -> Tensor:
            if both is not None and both.suit(batch):
                return both.mean(loss, batch)
            value = loss(model, *batch)
            return value.mean() if value.dim() else value  # a scalar's mean costs two operations

        def step(position: float, batch: Sequence[Any]) -> float:
            return descend(optimiser, lambda: mean(batch), optimisation, position)

        losses = epochs(
            rows, step, optimisation, generator, device=device, moved=moved, on_epoch=on_epoch
        )
    model.eval()
    return losses


def epochs(
    rows: Sequence[Rows],
    step: Step,
    optimisation: Optimisation,
    generator: torch.Generator,
    *,
    device: torch.device = devices.CPU,
    moved: Moved | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """Take `step` on every shuffled mini-batch of `rows`; what learns there is its affair.

    Arguments, batches, result and errors are those of `fit`; `device` is where batches go.
    """
    count = _count(rows)
    batches = _batches(count, optimisation.batch_size)
    view = augment.build(optimisation.augment)
    losses = []
    for epoch in range(optimisation.epochs):
        order = torch.randperm(count, generator=generator)
        if isinstance(x := rows[0], Tensor) and x.dtype == torch.int64 and x.dim() == 2:  # texts
            order = by_length(x, order, optimisation.batch_size, generator)
        total = 0.0
        for number, batch in enumerate(batches):
            index = order[batch]
            inputs, *others = (each[index] for each in rows)
            seen, motions = view(inputs, generator)
            if moved is not None and motions:
                others[0] = reduce(moved, motions, one(others[0]))
            there = [moved_to(each, device) for each in (seen, *others)]
            value = step(epoch + number / len(batches), there)
            total += value * len(index)
        losses.append(total / batches[-1].stop)
        if on_epoch is not None:
            on_epoch(epoch + 1, losses[-1])
    return losses


def descend(
    optimiser: torch.optim.Optimizer,
    loss: Callable[[], Tensor],
    optimisation: Optimisation,
    position: float,
) -> float:
    """Set the learning rate, compute the loss, clip, step down; the loss comes back as a number.

    Args:
        optimiser: over what is to learn.
        loss: computes a scalar with a graph to the optimiser's parameters.
        optimisation: learning rate, schedule, warm-up and clipping.
        position: see `Step`.

    Raises:
        FederationError: the loss is not finite; no parameter was changed.
    """
    set_rate(optimiser, optimisation, position / optimisation.epochs)
    value = loss()
    number = _finite(value, int(position) + 1, optimisation)
    optimiser.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]
    if optimisation.clip_norm is not None:
        held = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(held, optimisation.clip_norm)
    optimiser.step()
    return number


def _count(rows: Sequence[Rows]) -> int:
    lengths = {len(each) for each in rows}
    if len(lengths) != 1 or 0 in lengths:
        found = ", ".join(str(len(each)) for each in rows)
        raise ValueError(f"cannot train on [{found}] rows: expected equally many rows, > 0")
    return lengths.pop()


def _batches(count: int, size: int) -> list[slice]:
    slices = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    alone = size > 1 and len(slices) > 1 and slices[-1].stop - slices[-1].start == 1
    return slices[:-1] if alone else slices


def set_rate(optimiser: torch.optim.Optimizer, optimisation: Optimisation, done: float) -> None:
    """Set the learning rate for the step before which the share `done` of all steps is done.

    Args:
        optimiser: every group of it gets the rate.
        optimisation: learning rate, schedule and warm-up.
        done: in [0, 1).
    """
    rate = optimisation.learning_rate
    if optimisation.schedule == "cosine":
        rate *= (1 + math.cos(math.pi * done)) / 2
    if (position := done * optimisation.epochs) < optimisation.warmup:
        rate *= _COLD + (1 - _COLD) * position / optimisation.warmup
    for group in optimiser.param_groups:
        group["lr"] = rate


def _finite(value: Tensor, epoch: int, optimisation: Optimisation) -> float:
    number = value.item()
    if not math.isfinite(number):
        raise FederationError(
            f"training diverged: the loss is {number} in epoch {epoch}, expected a finite number; "
            f"lower the learning rate (now {optimisation.learning_rate})"
        )
    return number
