"""A stacked hourglass: heatmaps from all scales of an image, and better ones from those."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.models.classifiers import BasicBlock, image


class HourglassOptions(Frozen):
    """Options of `hourglass`."""

    stages: PositiveInt = 2
    """How many hourglasses follow each other."""
    width: PositiveInt = 32
    """Channels of all blocks."""
    depth: PositiveInt = 2
    """How often an hourglass halves its maps before it doubles them again."""


class Hourglass(nn.Module):
    """(N, C, h, w) -> (N, C, h, w), by a block at each of several scales, down and up."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.beside = _block(width, width)
        self.down = _block(width, width)
        self.inner = Hourglass(width, depth - 1) if depth > 1 else _block(width, width)
        self.up = _block(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        coarse = self.up(self.inner(self.down(F.max_pool2d(x, 2, ceil_mode=True))))
        fine: Tensor = self.beside(x)
        return fine + F.interpolate(coarse, size=fine.shape[2:])


class HourglassStage(nn.Module):
    """Features (N, C, h, w) -> features for the next stage, and heatmaps (N, K, h, w)."""

    def __init__(self, width: int, points: int, depth: int, *, last: bool) -> None:
        super().__init__()
        self.hourglass = Hourglass(width, depth)
        self.features = nn.Sequential(
            nn.Conv2d(width, width, 1, bias=False),
            nn.GroupNorm(math.gcd(8, width), width),
            nn.ReLU(),
        )
        self.heat = nn.Conv2d(width, points, 1, bias=False)
        # Heat is 0 nearly everywhere: from other answers training begins by finding that out.
        nn.init.normal_(self.heat.weight, std=0.001)  # as Xiao et al. 2018, arXiv:1804.06208
        self.again = None if last else nn.Conv2d(width + points, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        features = self.features(self.hourglass(x))
        heat = self.heat(features)
        if self.again is not None:
            x = x + self.again(torch.cat([features, heat], dim=1))
        return x, heat


class StackedHourglass(nn.Module):
    """(N, C, H, W) -> (N, h, w, K); `stages.I.heat` is what each stage says, (N, K, h, w)."""

    def __init__(
        self, channels: int, points: int, halvings: int, options: HourglassOptions
    ) -> None:
        super().__init__()
        width, stages = options.width, options.stages
        strides = [2] * halvings or [1]
        # Half as many channels for each size that is twice as large, as in ResNets.
        widths = [channels, *(max(4, width >> n) for n in reversed(range(len(strides))))]
        self.stem = nn.Sequential(
            *(_block(*pair, stride=s) for pair, s in zip(pairwise(widths), strides, strict=True))
        )
        self.stages = nn.ModuleList(
            HourglassStage(width, points, options.depth, last=number == stages)
            for number in range(1, stages + 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.stem(x)
        for stage in self.stages:
            x, heat = stage(x)
        answers: Tensor = heat.movedim(1, -1)
        return answers


def hourglass(
    shape: tuple[int, ...], answer: tuple[int, ...], options: HourglassOptions
) -> nn.Module:
    """A stacked hourglass for images (C, H, W), with heatmaps (H / s, W / s, K), s a power of two.

    Newell et al. 2016, arXiv:1603.06937; few stages and channels make the student of Zhang et al.
    2019, arXiv:1811.05419. Residual blocks are ResNet's, with group norm, so that it learns under
    DP-SGD too, and there is no loss of a stage's own: a form of knowledge may look at its heat.

    Raises:
        ConfigError: the shape is no image's, or the heatmaps are of another size.
    """
    channels, height, width = image("hourglass", shape, minimum=4)
    halvings = round(math.log2(max(1, height / answer[0])))
    cells = -(-height // 2**halvings), -(-width // 2**halvings)
    if len(answer) != 3 or cells != answer[:2]:
        raise ConfigError(
            f"model 'hourglass' halves an image of {height}x{width} pixels, and is asked for an "
            f"answer {answer}: expected task.stride to be 1, 2, 4 or another power of two"
        )
    if min(cells) <= 2**options.depth:
        raise ConfigError(
            f"model 'hourglass' halves {cells[0]}x{cells[1]} cells {options.depth} times, which "
            "leaves a single one: expected a lower hourglass.depth, or a lower task.stride"
        )
    return StackedHourglass(channels, answer[-1], halvings, options)


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return BasicBlock(inputs, outputs, stride=stride, norm="group")
