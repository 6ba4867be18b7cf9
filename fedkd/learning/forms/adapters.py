"""What is learned beside the student so that its features can be compared with the teacher's."""

import math

import torch
from torch import nn

from fedkd.rng import torch_default

Shape = tuple[int, ...]
"""Of a layer's output without the batch: (C, H, W) for maps, else rows."""


def is_maps(shape: Shape) -> bool:
    """Whether features of this shape are maps (C, H, W)."""
    return len(shape) == 3


def common_size(student: Shape, teacher: Shape) -> tuple[int, int]:
    """The smaller height and the smaller width of two shapes of maps."""
    return min(student[1], teacher[1]), min(student[2], teacher[2])


def pooled(size: tuple[int, int]) -> nn.Module:
    """Maps (N, C, H, W) -> (N, C, *size), by average pooling."""
    return nn.AdaptiveAvgPool2d(size)


def fit(inputs: Shape, outputs: Shape, generator: torch.Generator) -> nn.Module:
    """Features of one shape -> another: maps by pooling and a 1x1 convolution, else linearly.

    Pooling to a larger size repeats. No normalisation, which would couple the samples of a batch.

    Args:
        inputs: shape of the features that enter.
        outputs: shape of what comes out.
        generator: determines the initial weights.
    """
    with torch_default(generator):
        if is_maps(inputs) and is_maps(outputs):
            return nn.Sequential(
                pooled((outputs[1], outputs[2])), nn.Conv2d(inputs[0], outputs[0], 1)
            )
        linear = nn.Linear(math.prod(inputs), math.prod(outputs))
        return nn.Sequential(nn.Flatten(), linear, nn.Unflatten(1, outputs))


def regressor(student: Shape, teacher: Shape, generator: torch.Generator) -> nn.Module:
    """Student features -> the teacher's width; maps come out at the smaller size of both.

    Args:
        student: the shape of its features.
        teacher: likewise.
        generator: determines the initial weights.
    """
    if is_maps(student) and is_maps(teacher):
        return fit(student, (teacher[0], *common_size(student, teacher)), generator)
    return fit(student, (math.prod(teacher),), generator)


def like_regressed(student: Shape, teacher: Shape) -> nn.Module:
    """Teacher features -> the shape that `regressor` gives."""
    if is_maps(student) and is_maps(teacher):
        return pooled(common_size(student, teacher))
    return nn.Flatten()


def channels_regressed(student: Shape, teacher: Shape) -> int:
    """How many channels `regressor` gives."""
    return teacher[0] if is_maps(student) and is_maps(teacher) else math.prod(teacher)


def translator(
    inputs: int, outputs: int, size: tuple[int, int], generator: torch.Generator
) -> nn.Module:
    """Maps (N, inputs, H, W) -> (N, outputs, *size), by two 3x3 convolutions (Kim et al. 2018).

    Without the paper's normalisation, which would couple the samples of a batch.
    """
    with torch_default(generator):
        return nn.Sequential(
            pooled(size),
            nn.Conv2d(inputs, inputs, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(inputs, outputs, 3, padding=1),
        )
