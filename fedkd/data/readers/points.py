"""Points in images, such as joints, as a user's arrays hold them."""

import numpy as np
import torch
from torch import Tensor

from fedkd.data.readers.arrays import Array, FaultError, check, check_kind, check_shape


def read(key: str, array: Array, count: int) -> Tensor:
    """Points (N, K, 3), each x, y and whether it is visible, 0 or 1: float32.

    Raises:
        FaultError: a shape, a type or a value is another.
    """
    check_kind(key, array, "fiub", "x, y and 0 or 1 for each point, as numbers")
    expected = f"({count}, points, 3)"
    check_shape(key, array, count, "x, y and 0 or 1 for each point of a sample", expected, {3})
    if array.shape[2] != 3:
        raise FaultError(
            f"{key} has shape {array.shape}; expected {expected}: x and y in pixels, and 1 where a "
            "point is visible, else 0"
        )
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    check(key, ~np.isfinite(values), array, "a finite float32")
    wrong = np.zeros(array.shape, dtype=bool)
    wrong[..., 2] = (array[..., 2] != 0) & (array[..., 2] != 1)
    check(key, wrong, array, "1 where a point is visible, else 0")
    return torch.from_numpy(values)


def check_inside(key: str, points: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse visible points that are outside of images of this shape.

    Raises:
        FaultError: names the first one; or inputs are no images.
    """
    if len(shape) != 3:
        raise FaultError(
            f"{key} has points, and an input has shape {shape}; expected images (C, H, W)"
        )
    height, width = shape[1:]
    most = torch.tensor([width, height])
    outside = ((points[..., :2] < 0) | (points[..., :2] > most)).any(dim=-1) & (points[..., 2] > 0)
    for record, point in outside.nonzero()[:1].tolist():
        x, y = points[record, point, :2].tolist()
        raise FaultError(
            f"{key} is ({x:g}, {y:g}) at index ({record}, {point}); expected a point within the "
            f"image, {width} pixels wide and {height} high, or one that is not visible (0)"
        )
