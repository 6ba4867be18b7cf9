"""A U-Net: a class for each pixel of an image."""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.models.classifiers import image

_GROUPS = 8
"""The most groups of a GroupNorm."""


class UNetOptions(Frozen):
    """Options of `unet`."""

    width: PositiveInt = 8
    """Channels at full size; each level below has twice as many."""
    levels: PositiveInt = 3
    """Sizes, full size included, each half of the one above."""
    blocks: Literal[1, 2] = 2
    """3x3 convolutions, each with its normalisation, on a level before and after those below."""
    norm: Literal["batch", "group"] = "group"
    """Group normalisation is of each image alone, as DP-SGD needs it."""


class _UNet(nn.Module):
    """Ronneberger et al. 2015, arXiv:1505.04597, with padding, so that answers have all pixels.

    Upsampling repeats pixels in place of a transposed convolution, which leaves a grid in answers
    and has no gradients per sample.
    """

    def __init__(self, channels: int, classes: int, options: UNetOptions) -> None:
        super().__init__()
        widths = [options.width * 2**level for level in range(options.levels)]
        self.down = nn.ModuleList(
            _block(before, width, options)
            for before, width in zip([channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            _block(below + width, width, options) for width, below in pairwise(widths)
        )
        self.classifier = nn.Conv2d(options.width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) of any size -> logits (N, H, W, classes)."""
        levels: list[Tensor] = []
        for number, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2, ceil_mode=True) if number else x)
            levels.append(x)
        for block, beside in zip(reversed(self.up), reversed(levels[:-1]), strict=True):
            above = F.interpolate(x, size=beside.shape[2:])
            x = block(torch.cat([beside, above], dim=1))
        logits: Tensor = self.classifier(x)
        return logits.permute(0, 2, 3, 1)


def _block(inputs: int, outputs: int, options: UNetOptions) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(options.blocks):
        layers.append(nn.Conv2d(outputs if number else inputs, outputs, 3, padding=1))
        layers.append(_norm(outputs, options.norm))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _norm(channels: int, norm: str) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    # Of one channel alone nothing would be left of how bright it is.
    groups = max(
        n for n in range(1, _GROUPS + 1) if channels % n == 0 and n <= max(1, channels // 2)
    )
    return nn.GroupNorm(groups, channels)


def unet(shape: tuple[int, ...], answer: tuple[int, ...], options: UNetOptions) -> nn.Module:
    """A network for images (C, H, W) whose answer is logits (H, W, classes).

    Raises:
        ConfigError: inputs are no images, or smaller than its lowest level needs.
    """
    channels, _, _ = image("unet", shape, minimum=2 ** (options.levels - 1))
    return _UNet(channels, answer[-1], options)
