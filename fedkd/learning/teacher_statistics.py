"""What a teacher shows of a batch beside its logits, read from the inside of any model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fedkd import devices
from fedkd.knowledge import synthetic
from fedkd.models import call
from fedkd.models.heads import features_in, find_head, head, sizes

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Observation(NamedTuple):
    """What one teacher shows of N inputs; for K teachers each tensor has a first axis of K."""

    logits: Tensor
    """(N, C)."""
    bn: Tensor
    """Scalar, `synthetic.bn_statistics` over all BatchNorm layers; 0 where there is none."""
    activation: Tensor
    """(N,), `synthetic.activation` of what enters the head; 0 where there is none."""


def observe(teacher: nn.Module, x: Tensor) -> Observation:
    """Inputs (N, *shape) -> what `teacher` shows of them, differentiable in the inputs.

    Only one thread at a time may observe a model.
    """
    norms = [
        module
        for module in teacher.modules()
        if isinstance(module, _BATCH_NORMS) and module.running_mean is not None
    ]
    last = find_head(teacher)
    with _inputs([*norms, *([] if last is None else [last])]) as entered:
        logits = call.answer(teacher, x)
    # A layer that this forward pass did not reach has nothing to compare.
    reached = [module for module in norms if module in entered]
    bn, activation = logits.new_zeros(()), logits.new_zeros(len(x))
    if reached:
        bn = _bn_statistics(reached, [entered[module] for module in reached])
    if last is not None and last in entered:
        activation = synthetic.activation(features_in(entered[last]))
    return Observation(logits, bn, activation)


def with_features(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs (N, *shape) -> logits (N, C), and what enters the head, (N, F).

    Both are differentiable, in whatever mode the model is. Only one thread at a time may ask.
    """
    last = head(model)
    with _inputs([last]) as entered:
        logits = call.answer(model, x)
    return logits, features_in(entered[last])


def feature_width(model: nn.Module) -> int:
    """F of `with_features`.

    Raises:
        ConfigError: the model has no head.
    """
    return sizes(head(model))[0]


@contextmanager
def _inputs(modules: list[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Collect what enters each module, as long as the context lasts."""
    entered: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        entered[module] = devices.widened(arguments[0])

    handles = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        yield entered
    finally:
        for handle in handles:
            handle.remove()


def _bn_statistics(norms: Sequence[nn.Module], inputs: Sequence[Tensor]) -> Tensor:
    variances, means = zip(
        *(
            torch.var_mean(each, dim=[d for d in range(each.dim()) if d != 1], correction=0)
            for each in inputs
        ),
        strict=True,
    )
    running_means = [norm.get_buffer("running_mean") for norm in norms]
    running_variances = [norm.get_buffer("running_var") for norm in norms]
    return synthetic.bn_statistics(means, variances, running_means, running_variances)
