"""The head of a classifier: the layer that turns features into logits."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.errors import ConfigError

Head = nn.Linear | nn.Conv2d
"""A linear layer, or a 1x1 convolution, which is the same at every place of a map."""

CALLED = ("classifier", "score", "fc", "head", "heads")
"""What torchvision, timm and Hugging Face call it, or the block that it is the last of."""


def head(model: nn.Module) -> Head:
    """The layer of a model that features enter and, in a classifier, logits leave.

    Args:
        model: any module.

    Returns:
        Its last linear layer; a 1x1 convolution where that is what the model calls its classifier,
        or where it has no linear layer.

    Raises:
        ConfigError: there is neither.
    """
    found = find_head(model)
    if found is None:
        raise ConfigError(
            f"model {type(model).__name__!r} has no linear layer: features are what enters the "
            "last one, so expected a torch.nn.Linear, or a 1x1 convolution"
        )
    return found


def find_head(model: nn.Module) -> Head | None:
    """`head`, or None where there is none."""
    layers = _layers(model)
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if linear and linear[-1] is layers[-1]:
        return linear[-1]
    # A 1x1 convolution is a head only where the model says so: most only change channels.
    blocks = (getattr(model, name, None) for name in CALLED)
    named = [
        found for block in blocks if isinstance(block, nn.Module) and (found := _layers(block))
    ]
    groups: list[Sequence[Head]] = [*named, linear, layers]
    return next((group[-1] for group in groups if group), None)


def sizes(layer: Head) -> tuple[int, int]:
    """How many features enter a head, and how many logits leave it."""
    outputs, inputs, *_ = layer.weight.shape
    return inputs, outputs


def features_in(entered: Tensor) -> Tensor:
    """What entered a head as rows of features (N, F): maps (N, F, H, W) by their mean."""
    return entered.mean(dim=(2, 3)) if entered.dim() == 4 else entered


def logits_of(layer: Head, features: Tensor) -> Tensor:
    """What a head says of features: (N, F) -> (N, C)."""
    return F.linear(features, layer.weight.flatten(1), layer.bias)


def _layers(model: nn.Module) -> list[Head]:
    return [
        each
        for each in model.modules()
        if isinstance(each, nn.Linear)
        or (isinstance(each, nn.Conv2d) and each.kernel_size == (1, 1) and each.groups == 1)
    ]
