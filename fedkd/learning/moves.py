"""Changes of images that only move what is in them, so that targets can follow: `Motion`."""

import torch
from pydantic import Field
from torch import Tensor

from fedkd.config import Frozen
from fedkd.tasks.motion import Motion


class Crop(Frozen):
    """Parameters of `cropped`."""

    padding: int = Field(default=4, ge=1)
    """The most pixels by which an image moves along each axis."""


class RandomWindow(Frozen):
    """Parameters of `windowed`."""

    size: int = Field(default=64, ge=1)
    """The square's side, in pixels."""


class Flip(Frozen):
    """Parameters of `flipped`."""

    probability: float = Field(default=0.5, ge=0, le=1)


def cropped(x: Tensor, generator: torch.Generator, *, padding: int) -> Motion:
    """Move each image (C, H, W) by up to `padding` pixels along both axes; what comes in is 0."""
    n, _, height, width = x.shape
    down, right = torch.randint(2 * padding + 1, (2, n, 1), generator=generator) - padding
    return Motion(down[:, 0], right[:, 0], _nowhere(x), (height, width))


def windowed(x: Tensor, generator: torch.Generator, *, size: int) -> Motion:
    """Cut a square of `size` pixels out of each image (C, H, W), anywhere in it."""
    n, _, height, width = x.shape
    down = torch.randint(height - size + 1, (n,), generator=generator)
    right = torch.randint(width - size + 1, (n,), generator=generator)
    return Motion(down, right, _nowhere(x), (size, size))


def flipped(x: Tensor, generator: torch.Generator, *, probability: float) -> Motion:
    """Mirror each image (C, H, W) left to right, with this probability."""
    chosen = torch.rand(len(x), generator=generator) < probability
    still = torch.zeros(len(x), dtype=torch.int64)
    return Motion(still, still, chosen, (x.shape[2], x.shape[3]))


def _nowhere(x: Tensor) -> Tensor:
    """No image is mirrored: bool (N,)."""
    return torch.zeros(len(x), dtype=torch.bool)
