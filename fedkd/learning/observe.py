"""What a teacher shows of a batch beside its logits, read from the inside of any model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fedkd.knowledge import synthetic

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Observation(NamedTuple):
    """What one teacher shows of N inputs; for K teachers each tensor has a first axis of K."""

    logits: Tensor
    """(N, C)."""
    bn: Tensor
    """Scalar, `synthetic.bn_statistics` over all BatchNorm layers; 0 where there is none."""
    activation: Tensor
    """(N,), `synthetic.activation` of what enters the last linear layer; 0 where there is none."""


def observe(teacher: nn.Module, x: Tensor) -> Observation:
    """Inputs (N, *shape) -> what `teacher` shows of them, differentiable in the inputs.

    Only one thread at a time may observe a model.
    """
    norms = [
        module
        for module in teacher.modules()
        if isinstance(module, _BATCH_NORMS) and module.running_mean is not None
    ]
    linears = [module for module in teacher.modules() if isinstance(module, nn.Linear)][-1:]
    with _inputs([*norms, *linears]) as entered:
        logits = teacher(x)
    # A layer that this forward pass did not reach has nothing to compare.
    reached = [module for module in norms if module in entered]
    bn, activation = logits.new_zeros(()), logits.new_zeros(len(x))
    if reached:
        bn = _bn_statistics(reached, [entered[module] for module in reached])
    if linears and linears[0] in entered:
        activation = synthetic.activation(entered[linears[0]])
    return Observation(logits, bn, activation)


@contextmanager
def _inputs(modules: list[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Collect what enters each module, as long as the context lasts."""
    entered: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        entered[module] = arguments[0]

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
