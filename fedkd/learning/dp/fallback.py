"""Gradients per record of a layer without a rule of ours: as Opacus or torch's vmap makes them."""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fedkd.privacy.gradients import Built, Gradients

log = logging.getLogger(__name__)


def check(layer: nn.Module) -> None:
    """Refuse a layer that keeps something of what it has seen.

    Raises:
        NotImplementedError: it has buffers, or is an EmbeddingBag.
    """
    if type(layer) is nn.EmbeddingBag or any(True for _ in layer.buffers()):
        raise NotImplementedError(type(layer).__name__)


def announce(layers: dict[str, nn.Module]) -> None:
    """Say which layers take the long way."""
    if layers:
        names = ", ".join(
            f"{name or 'model'} ({type(each).__name__})" for name, each in layers.items()
        )
        log.warning(
            "DP-SGD builds the whole gradient of each record for %s: slower than torch's plain "
            "layers, and as exact",
            names,
        )


def gradients(
    layer: nn.Module, inputs: tuple[Any, ...], slope: Tensor
) -> Iterator[tuple[Tensor, Gradients]]:
    """A rule, see `rules`: by Opacus's for this kind of layer, where it has one, or by vmap."""
    from opacus.grad_sample import GradSampleModule  # takes seconds

    sampler = GradSampleModule.GRAD_SAMPLERS.get(type(layer))
    found = sampler(layer, list(inputs), slope) if sampler else _by_vmap(layer, inputs, slope)
    for parameter, each in found.items():
        yield parameter, Built(each)


def _by_vmap(
    layer: nn.Module, inputs: tuple[Any, ...], slope: Tensor
) -> dict[nn.Parameter, Tensor]:
    parameters = dict(layer.named_parameters())

    def value(weights: dict[str, Tensor], entered: tuple[Any, ...], along: Tensor) -> Tensor:
        one = tuple(each.unsqueeze(0) if isinstance(each, Tensor) else each for each in entered)
        said: Tensor = torch.func.functional_call(layer, weights, one)
        return (said * along.unsqueeze(0)).sum()

    kinds = tuple(0 if isinstance(each, Tensor) else None for each in inputs)
    each = torch.func.vmap(torch.func.grad(value), in_dims=(None, kinds, 0))
    found = each({name: value.detach() for name, value in parameters.items()}, inputs, slope)
    return {parameters[name]: gradient for name, gradient in found.items()}
