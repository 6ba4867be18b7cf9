"""The built-in classifiers: (N, *shape) in, logits (N, classes) out.

Every function builds one network for inputs of `shape` and raises `ConfigError` where that shape
does not fit. The last layer is always called `classifier`.
"""

import math
from collections import OrderedDict
from typing import Literal

import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.errors import ConfigError


class NoOptions(Frozen):
    """A model that has no options."""


class MLPOptions(Frozen):
    """Options of `mlp`."""

    hidden: tuple[PositiveInt, ...] = (200, 200)
    """Units of each hidden layer."""


class DenseCNNOptions(Frozen):
    """Options of `dense-cnn`."""

    norm: Literal["batch", "group", "none"] = "batch"


class ResNetOptions(Frozen):
    """Options of `resnet8`."""

    norm: Literal["batch", "group"] = "batch"
    width: PositiveInt = 16
    """Channels of the first stage; the second has twice, the third four times as many."""


def mlp(shape: tuple[int, ...], classes: int, options: MLPOptions) -> nn.Module:
    """A multi-layer perceptron with ReLU, for rows of features or flattened images."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    inputs = math.prod(shape)
    for number, units in enumerate(options.hidden, start=1):
        layers[f"hidden{number}"] = nn.Linear(inputs, units)
        layers[f"relu{number}"] = nn.ReLU()
        inputs = units
    layers["classifier"] = nn.Linear(inputs, classes)
    return nn.Sequential(layers)


def lenet5(shape: tuple[int, ...], classes: int, _options: NoOptions) -> nn.Module:
    """LeNet-5 with ReLU and max pooling (LeCun et al. 1998): 61,706 parameters at 1x32x32.

    A side below 32 pixels is padded by 2 at both ends, as the original did with 28x28.
    """
    channels, height, width = image("lenet5", shape, minimum=12)
    padding = (2 if height < 32 else 0, 2 if width < 32 else 0)
    rows, columns = (
        ((side + 2 * pad - 4) // 2 - 4) // 2
        for side, pad in zip((height, width), padding, strict=True)
    )
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 6, 5, padding=padding),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            hidden1=nn.Linear(16 * rows * columns, 120),
            relu3=nn.ReLU(),
            hidden2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            classifier=nn.Linear(84, classes),
        )
    )


def dense_cnn(shape: tuple[int, ...], classes: int, options: DenseCNNOptions) -> nn.Module:
    """The CNN of the one-shot benchmark: 29,034 parameters at 1x28x28 and ten classes.

    Zhang et al. 2022, DENSE, arXiv:2112.12371.
    """
    channels, height, width = image("dense-cnn", shape, minimum=4)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 16, 5, padding=2),
            norm1=_norm(options.norm, 16),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(16, 32, 5, padding=2),
            norm2=_norm(options.norm, 32),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            classifier=nn.Linear(32 * (height // 4) * (width // 4), classes),
        )
    )


def resnet8(shape: tuple[int, ...], classes: int, options: ResNetOptions) -> nn.Module:
    """ResNet-8: three stages of one basic block (He et al. 2015, arXiv:1512.03385)."""
    channels, _, _ = image("resnet8", shape, minimum=4)
    width, norm = options.width, options.norm
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, width, 3, padding=1, bias=False),
            norm=_norm(norm, width),
            relu=nn.ReLU(),
            stage1=BasicBlock(width, width, stride=1, norm=norm),
            stage2=BasicBlock(width, 2 * width, stride=2, norm=norm),
            stage3=BasicBlock(2 * width, 4 * width, stride=2, norm=norm),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(4 * width, classes),
        )
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected by a 1x1 convolution where shapes differ.

    (N, inputs, H, W) -> (N, outputs, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = _norm(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = _norm(norm, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, _norm(norm, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Residual plus shortcut."""
        residual = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(residual)) + self.shortcut(x))


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels)
    if kind == "none":
        return nn.Identity()
    return nn.BatchNorm2d(channels)


def image(name: str, shape: tuple[int, ...], *, minimum: int) -> tuple[int, int, int]:
    """`shape` as (channels, height, width), if it is an image of at least minimum x minimum."""
    if len(shape) != 3:
        raise ConfigError(
            f"model {name!r} cannot take inputs of shape {shape}: expected images "
            "(channels, height, width); for rows of features use 'mlp'"
        )
    channels, height, width = shape
    if min(height, width) < minimum:
        raise ConfigError(
            f"model {name!r} cannot take images of {height}x{width}: expected at least "
            f"{minimum}x{minimum}; for smaller images use 'mlp'"
        )
    return channels, height, width
