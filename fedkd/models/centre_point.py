"""A small detector: a grid of answers from features at several scales."""

import math

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.models.classifiers import image
from fedkd.tasks.boxes.grid import SHAPE

_RARE = -2.19
"""An untrained logit: a centre in one of ten cells (Zhou et al. 2019)."""


class CentrePointOptions(Frozen):
    """Options of `centre-point`."""

    widths: tuple[PositiveInt, ...] = Field(default=(16, 24, 32, 48), min_length=1)
    """Channels at each scale; each halves the one before, so that the first is at half the image's
    size. What is coarser than the grid comes back up to it."""


class CentrePoint(nn.Module):
    """(N, C, H, W) -> (N, h, w, answer): down to the coarsest scale, and up to the grid's.

    Group norm, so that it learns under DP-SGD too.
    """

    def __init__(self, channels: int, answer: int, widths: tuple[int, ...], finest: int) -> None:
        super().__init__()
        before = (channels, *widths[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(_block(a, b, stride=2), _block(b, b))
            for a, b in zip(before, widths, strict=True)
        )
        self.up = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1)
            for fine, coarse in zip(widths[finest:-1], widths[finest + 1 :], strict=True)
        )
        width = widths[finest]
        self.mix = _block(width, width)
        self.head = nn.Conv2d(width, answer, 1)
        self.finest = finest
        rare = torch.zeros(answer)
        rare[:-SHAPE] = _RARE
        self.head.bias = nn.Parameter(rare)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        scales = []
        for stage in self.down:
            x = stage(x)
            scales.append(x)
        for level in range(len(self.up) - 1, -1, -1):
            fine = scales[self.finest + level]
            x = fine + F.interpolate(self.up[level](x), size=fine.shape[2:])
        answers: Tensor = self.head(self.mix(x))
        return answers.movedim(1, -1)


def centre_point(
    shape: tuple[int, ...], answer: tuple[int, ...], options: CentrePointOptions
) -> nn.Module:
    """A centre-point detector for images (C, H, W), with answers (H / s, W / s, classes + 4).

    Raises:
        ConfigError: the shape is no image's, or the grid is none of its scales.
    """
    channels, height, width = image("centre-point", shape, minimum=2 ** len(options.widths))
    stride = height // answer[0]
    finest = round(math.log2(stride)) - 1 if stride > 1 else -1
    scales = [2 ** (n + 1) for n in range(len(options.widths))]
    if stride not in scales or (height, width) != (answer[0] * stride, answer[1] * stride):
        raise ConfigError(
            f"model 'centre-point' has widths for cells of {', '.join(map(str, scales))} pixels, "
            f"and a record of shape {shape} is asked for {answer}: expected task.stride to be one "
            "of these; give more widths for a coarser one"
        )
    return CentrePoint(channels, answer[-1], options.widths, finest)


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    groups = math.gcd(outputs, 4)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(groups, outputs),
        nn.ReLU(),
    )
