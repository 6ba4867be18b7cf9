"""Views of a batch: the same inputs, disturbed so that their classes stay what they are."""

from collections.abc import Callable

import torch
from torch import Tensor

View = Callable[[Tensor, torch.Generator], Tensor]
"""Inputs (N, *shape) and the source of all draws to another view of them, of the same shape."""


def noisy(x: Tensor, generator: torch.Generator, *, std: float) -> Tensor:
    """Add Gaussian noise of standard deviation `std`; for inputs of any shape."""
    return x + std * torch.randn(x.shape, generator=generator)


def shifted(x: Tensor, generator: torch.Generator, *, pixels: int) -> Tensor:
    """Move each image by up to `pixels` along both axes; what comes in is 0.

    Raises:
        ValueError: the inputs are not images (N, C, H, W).
    """
    if x.dim() != 4:
        raise ValueError(f"inputs {tuple(x.shape)} cannot be shifted: expected images (N, C, H, W)")
    n, _, height, width = x.shape
    padded = torch.nn.functional.pad(x, (pixels,) * 4)
    down, right = torch.randint(2 * pixels + 1, (2, n, 1), generator=generator)
    rows = (down + torch.arange(height))[:, None, :, None]
    columns = (right + torch.arange(width))[:, None, None, :]
    images = torch.arange(n)[:, None, None, None]
    channels = torch.arange(x.shape[1])[None, :, None, None]
    return padded[images, channels, rows, columns]
