"""Boxes (left, top, right, bottom) in pixels, from the top left corner of an image."""

import torch
from torch import Tensor

PADDING = -1
"""The class of a box that is none: it fills up a record that has fewer than another."""


def overlap(left: Tensor, right: Tensor) -> Tensor:
    """Intersection over union of boxes (*, K, 4) and (*, M, 4): (*, K, M), in [0, 1].

    Of two boxes without area it is 0.
    """
    corners = torch.minimum(left[..., :, None, 2:], right[..., None, :, 2:]) - torch.maximum(
        left[..., :, None, :2], right[..., None, :, :2]
    )
    shared = corners.clamp(min=0).prod(dim=-1)
    union = area(left)[..., :, None] + area(right)[..., None, :] - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


def area(boxes: Tensor) -> Tensor:
    """(*, 4) -> (*,), in square pixels; that of a box turned inside out is 0."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)
