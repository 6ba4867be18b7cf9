"""A network with early exits: small classifiers after some of its layers."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fedkd import devices
from fedkd.errors import ConfigError
from fedkd.models.layers import LOGITS, forward_with, inspect_layers
from fedkd.rng import torch_default


class ExitOutput(NamedTuple):
    """What leaves an exit for N inputs."""

    logits: Tensor
    """(N, C)."""
    features: Tensor
    """(N, D), D for all exits that of the deepest."""


class Exit(nn.Module):
    """From a layer's output to features shaped as the deepest ones, and from these to logits.

    Maps go through a 1x1 convolution with BatchNorm and are pooled, rows through a linear layer.
    """

    def __init__(self, shape: tuple[int, ...], deepest: tuple[int, ...], classes: int) -> None:
        super().__init__()
        units = math.prod(deepest)
        if len(shape) == len(deepest) == 3:
            self.adapt = nn.Sequential(
                nn.Conv2d(shape[0], deepest[0], 1, bias=False),
                nn.BatchNorm2d(deepest[0]),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(deepest[1:]),
            )
        else:
            self.adapt = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), units), nn.ReLU())
        self.classifier = nn.Linear(units, classes)

    def forward(self, output: Tensor) -> ExitOutput:
        """A layer's output (N, *shape) -> what leaves here."""
        features = self.adapt(output).flatten(1)
        return ExitOutput(self.classifier(features), features)


class Exits(nn.Module):
    """A network with exits; as a whole it answers with the mean of all logits."""

    def __init__(self, network: nn.Module, exits: Mapping[str, Exit], deepest: str) -> None:
        super().__init__()
        self.network = network
        self.layers = tuple(exits)
        self.deepest = deepest
        self.exits = nn.ModuleList(exits.values())

    def leave(self, x: Tensor) -> list[ExitOutput]:
        """Inputs (N, *shape) -> what leaves each exit, the deepest, the network's own, last."""
        shown = forward_with(self.network, x, [*self.layers, self.deepest])
        early = [leave(shown[name]) for name, leave in zip(self.layers, self.exits, strict=True)]
        return [*early, ExitOutput(shown[LOGITS], shown[self.deepest].flatten(1))]

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (N, *shape) -> logits (N, C)."""
        return torch.stack([each.logits for each in self.leave(x)]).mean(dim=0)


def attach(
    network: nn.Module,
    layers: Sequence[str],
    *,
    deepest: str | None = None,
    shape: tuple[int, ...],
    generator: torch.Generator,
) -> Exits:
    """Put exits on a network.

    Args:
        network: a classifier; it is not copied.
        layers: dotted names of those after which there is to be an exit.
        deepest: the layer whose features are the deepest; None: the last before the head.
        shape: of one input.
        generator: determines the exits' initial weights.

    Raises:
        ConfigError: a layer does not exist (valid ones are named), or cannot be looked at.
    """
    inside = inspect_layers(network, shape)
    deepest = deepest or inside.features
    if deepest is None:
        raise ConfigError("early exits need features before the last layer: the model has none")
    (classes,) = inside.shapes[LOGITS]
    with torch_default(generator):
        exits = {
            layer: Exit(inside.shape(layer), inside.shape(deepest), classes)
            for layer in dict.fromkeys(layers)
        }
    return Exits(network, exits, deepest).to(devices.of(network))
