"""Gradients per record of the layers of torch, from what entered one and the slope of its output.

A rule takes a layer, what it was called with and the slope (N, ...) of what it gave, and yields
each parameter, also one that does not learn, and its gradients.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.learning.dp.convolved import Geometry, convolved
from fedkd.learning.dp.forms import Lookups, products
from fedkd.models.text.tied import TiedLinear
from fedkd.privacy.gradients import Built, Gradients

Found = Iterator[tuple[Tensor | None, Gradients]]
Rule = Callable[[Any, tuple[Any, ...], Tensor], Found]


def rule_of(layer: nn.Module) -> Rule | None:
    """The rule for a layer, if it does what torch's own does."""
    for kind, rule in _RULES.items():
        own = isinstance(layer, kind) and type(layer).forward is kind.forward
        if own and getattr(type(layer), "_conv_forward", None) is getattr(
            kind, "_conv_forward", None
        ):
            return rule
    return None


def _linear(layer: nn.Linear, inputs: tuple[Any, ...], slope: Tensor) -> Found:
    return _products(layer.weight, layer.bias, inputs[0], slope)


def _tied(layer: TiedLinear, inputs: tuple[Any, ...], slope: Tensor) -> Found:
    states, weight = inputs
    return _products(weight, layer.bias, states, slope)


def _products(weight: Tensor, bias: Tensor | None, x: Tensor, slope: Tensor) -> Found:
    slopes, entered = (each.reshape(len(slope), -1, each.shape[-1]) for each in (slope, x))
    yield weight, products(slopes, entered)
    yield bias, Built(slopes.sum(dim=1))


def _embedding(layer: nn.Embedding, inputs: tuple[Any, ...], slope: Tensor) -> Found:
    numbers = inputs[0].reshape(len(slope), -1)
    slopes = slope.reshape(*numbers.shape, layer.embedding_dim)
    yield layer.weight, Lookups(numbers, slopes, layer.num_embeddings, layer.padding_idx)


def _convolution(
    layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, inputs: tuple[Any, ...], slope: Tensor
) -> Found:
    x, padding = inputs[0], layer.padding
    if isinstance(padding, str) or layer.padding_mode != "zeros":
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
        padding = (0,) * len(layer.kernel_size)
    filters = tuple(layer.weight.shape)
    geometry = Geometry(filters, layer.stride, padding, layer.dilation, layer.groups)
    yield layer.weight, convolved(x, slope, geometry)
    yield layer.bias, Built(slope.flatten(2).sum(dim=2))


def group_normed(layer: nn.GroupNorm, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What `layer(x)` gives, and what else its rule takes: means and scales, (N, groups) each."""
    count, channels, *places = x.shape
    found: tuple[Tensor, Tensor, Tensor] = torch.native_group_norm(
        x.contiguous(),
        layer.weight,
        layer.bias,
        count,
        channels,
        math.prod(places),
        layer.num_groups,
        layer.eps,
    )
    return found


def group_norm(layer: nn.GroupNorm, inputs: tuple[Any, ...], slope: Tensor) -> Found:
    """As torch's way back has it, with the channels of all records as those of one."""
    x, means, scales = inputs
    count, channels, *places = x.shape
    size = math.prod(places)
    folded = (1, count * channels, size)
    _, weight, bias = torch.ops.aten.native_group_norm_backward(
        slope.reshape(folded),
        x.reshape(folded),
        means.reshape(1, -1),
        scales.reshape(1, -1),
        x.new_ones(1).expand(folded[1]),
        *folded,
        means.numel(),
        (False, True, True),
    )
    yield layer.weight, Built(weight.reshape(count, channels))
    yield layer.bias, Built(bias.reshape(count, channels))


def _instance_norm(layer: Any, inputs: tuple[Any, ...], slope: Tensor) -> Found:
    """By the channel: the sum of slopes times what is scaled, and of slopes."""
    count, channels, *places = inputs[0].shape
    normed = F.group_norm(inputs[0], channels, eps=layer.eps)
    shape = (count, channels, math.prod(places))
    yield layer.weight, Built((normed * slope).reshape(shape).sum(dim=2))
    yield layer.bias, Built(slope.reshape(shape).sum(dim=2))


def _layer_norm(layer: nn.LayerNorm, inputs: tuple[Any, ...], slope: Tensor) -> Found:
    normed = F.layer_norm(inputs[0], layer.normalized_shape, eps=layer.eps)
    shape = (len(slope), -1, *layer.normalized_shape)
    yield layer.weight, Built((normed * slope).reshape(shape).sum(dim=1))
    yield layer.bias, Built(slope.reshape(shape).sum(dim=1))


def _rms_norm(layer: nn.RMSNorm, inputs: tuple[Any, ...], slope: Tensor) -> Found:
    normed = F.rms_norm(inputs[0], layer.normalized_shape, eps=layer.eps)
    yield layer.weight, Built((normed * slope).reshape(len(slope), -1, *layer.weight.shape).sum(1))


_RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    TiedLinear: _tied,
    nn.Embedding: _embedding,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.GroupNorm: group_norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.InstanceNorm1d: _instance_norm,
    nn.InstanceNorm2d: _instance_norm,
    nn.InstanceNorm3d: _instance_norm,
}
