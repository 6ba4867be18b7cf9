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


def regressor(student: Shape, teacher: Shape, generator: torch.Generator) -> nn.Module:
    """Student features -> the teacher's width: a 1x1 convolution of maps, else a linear layer.

    Maps are pooled to the smaller size of both first. No normalisation, which would couple the
    samples of a batch.

    Args:
        student: the shape of its features.
        teacher: likewise.
        generator: determines the initial weights.
    """
    with torch_default(generator):
        if is_maps(student) and is_maps(teacher):
            pool = pooled(common_size(student, teacher))
            return nn.Sequential(pool, nn.Conv2d(student[0], teacher[0], 1))
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(student), math.prod(teacher)))


def like_regressed(student: Shape, teacher: Shape) -> nn.Module:
    """Teacher features -> the shape that `regressor` gives."""
    if is_maps(student) and is_maps(teacher):
        return pooled(common_size(student, teacher))
    return nn.Flatten()
