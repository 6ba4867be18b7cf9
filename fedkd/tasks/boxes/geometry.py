"""Boxes (left, top, right, bottom) in pixels, from the top left corner of an image."""

import torch
from torch import Tensor

from fedkd.tasks.motion import Motion

PADDING = -1
"""The class of a box that is none: it fills up a record that has fewer than another."""
LEAST = 0.5
"""The share of a box that must be in a part of an image, or the box is none of it."""


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


def moved(boxes: Tensor, motion: Motion) -> Tensor:
    """Boxes (N, M, 5) as their images moved, cut off at the edges.

    One of which less than `LEAST` is left becomes padding.
    """
    first, last = (motion.of_places(boxes[..., ends]) for ends in (slice(1, 3), slice(3, 5)))
    height, width = motion.size
    edges = boxes.new_tensor([width, height] * 2)
    corners = torch.cat([torch.minimum(first, last), torch.maximum(first, last)], dim=-1)
    inside = torch.minimum(corners.clamp(min=0), edges)
    kept = (boxes[..., 0] != PADDING) & (area(inside) >= LEAST * area(corners))
    found = torch.cat([boxes[..., :1], inside], dim=-1)
    return torch.where(kept[..., None], found, boxes.new_tensor([PADDING, 0, 0, 0, 0]))
