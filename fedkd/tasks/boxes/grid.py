"""Boxes on a grid: what a centre-point detector should answer, and the boxes in what it answers.

An image (C, H, W) has a grid of (H / s, W / s) cells of s pixels. A cell answers a logit for each
class, that a box of it has its centre here, and four numbers of that box in units of s: the logs of
width and height, and how far right and down its centre is from the cell's middle. Zhou et al. 2019,
arXiv:1904.07850, whose Gaussians follow the box's shape here, as in Liu et al. 2020 (TTFNet),
arXiv:1909.00700; and whose sizes are logarithms, so that a step of the optimiser is a share of any
size.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.tasks.boxes.geometry import PADDING

SHAPE = 4
"""How many numbers a cell answers beside the logits of classes."""
MOST = 100
"""Boxes in one image at most, the surest first; as many as COCO's metric looks at."""
_SPREAD = 0.54 / 6
"""A Gaussian's standard deviation over the box's side; TTFNet's alpha of 0.54."""
_LEAST_SPREAD = 0.35
"""Of a Gaussian, in cells, so that a small box is seen from the cells around its centre."""
_FAINT = 1e-3
"""Of a centre where nobody found one."""
_SMALLEST = 0.1
"""Sides in cells; the logarithm of less would be of no box that a grid can tell."""


class Maps(NamedTuple):
    """What a grid should answer.

    Attributes:
        heat: (N, h, w, C) in [0, 1]: 1 in the cell of a centre, less beside it.
        shape: (N, h, w, 4), of the box whose centre is nearest by its own measure.
        near: (N, h, w) in [0, 1], how near that is; 0 where the record has no box.
        boxes: (N,), how many boxes a record has.
    """

    heat: Tensor
    shape: Tensor
    near: Tensor
    boxes: Tensor


def drawn(boxes: Tensor, grid: tuple[int, int], *, stride: int, classes: int) -> Maps:
    """Boxes (N, M, 5) on a grid (h, w) of cells of `stride` pixels; padding draws nothing."""
    real = boxes[..., 0] != PADDING
    near, shapes = _around(boxes, grid, stride)
    # Of two boxes at one distance the cell belongs to the first.
    best, whose = near.max(dim=1)
    heat = _hottest(near, boxes[..., 0], classes)
    return Maps(heat, _of_the(whose, shapes), best, real.sum(dim=1))


def answered(found: Tensor, grid: tuple[int, int], *, stride: int, classes: int) -> Tensor:
    """What a grid would answer of boxes that another found: (N, K, 6), as `found` has them.

    A centre is as likely as the box is, and beside it less, as `drawn` has it. So a detector that
    answers a list of boxes can teach one that answers a grid.

    Returns:
        (N, h, w, C + 4); no probability is below `_FAINT`.
    """
    near, shapes = _around(found[..., :5], grid, stride)
    likely = near * found[..., 5].sigmoid()[:, :, None, None]
    heat = _hottest(likely, found[..., 0], classes).clamp(_FAINT, 1 - _FAINT)
    whose = likely.max(dim=1).indices
    return torch.cat([heat.logit(), _of_the(whose, shapes)], dim=-1)


def near_objects(boxes: Tensor, grid: tuple[int, int], *, stride: int, share: float) -> Tensor:
    """Which cells are near a box: bool (N, h, w).

    Those where a box of the same shape, laid with its centre in the cell's middle, overlaps it by
    at least `share` of the most that any cell comes to. Wang et al. 2019, arXiv:1906.03609, whose
    anchors are boxes of a few fixed shapes.
    """
    corners = boxes[..., 1:] / stride
    centres = (corners[..., :2] + corners[..., 2:]) / 2
    sides = (corners[..., 2:] - corners[..., :2])[:, :, None, None]
    away = (_middles(grid, boxes)[None, None] - centres[:, :, None, None]).abs()
    shared = (sides - away).clamp(min=0).prod(dim=-1)
    overlaps = shared / (2 * sides.prod(dim=-1) - shared).clamp(min=1e-9)
    most = overlaps.amax(dim=(2, 3), keepdim=True)
    real = (boxes[..., 0] != PADDING)[:, :, None, None]
    return (real & (overlaps >= share * most) & (overlaps > 0)).any(dim=1)


def _around(boxes: Tensor, grid: tuple[int, int], stride: int) -> tuple[Tensor, Tensor]:
    """How near (N, M, h, w) each cell is to each box's centre, and its shape (N, M, h, w, 4)."""
    corners = boxes[..., 1:] / stride
    centres = (corners[..., :2] + corners[..., 2:]) / 2
    sides = (corners[..., 2:] - corners[..., :2]).clamp(min=_SMALLEST)
    away = _middles(grid, boxes)[None, None] - centres[:, :, None, None]
    spread = (_SPREAD * sides).clamp(min=_LEAST_SPREAD)[:, :, None, None]
    measured = (away / spread).square().sum(dim=-1)
    home = ((away > -0.5) & (away <= 0.5)).all(dim=-1)  # the cell that the centre is in
    real = (boxes[..., 0] != PADDING)[:, :, None, None]
    near = torch.where(home, 1.0, (-measured / 2).exp()) * real
    return near, torch.cat([sides.log()[:, :, None, None].expand_as(away), -away], dim=-1)


def _hottest(near: Tensor, kind: Tensor, classes: int) -> Tensor:
    """(N, M, h, w) and classes (N, M) -> (N, h, w, C): of each class the most."""
    heat = [(near * (kind == number)[:, :, None, None]).amax(dim=1) for number in range(classes)]
    return torch.stack(heat, dim=-1)


def _of_the(whose: Tensor, shapes: Tensor) -> Tensor:
    """Of each cell (N, h, w) the shape (N, M, h, w, 4) of one box: (N, h, w, 4)."""
    own = whose[:, None, :, :, None].expand(-1, 1, -1, -1, SHAPE)
    return shapes.gather(1, own)[:, 0]


def found(answers: Tensor, *, stride: int, most: int = MOST) -> Tensor:
    """The boxes in a grid's answers (N, h, w, C + 4): (N, K, 6), the surest first.

    A box is (class, left, top, right, bottom, log odds), cut off at the image's edges. It is where
    the logit of a class is the highest of its cell and the eight around it.
    K is `most`, or as many cells times classes as there are; a box that would not be one has log
    odds of minus infinity and the class of padding.
    """
    count, height, width = answers.shape[:3]
    heat = answers[..., :-SHAPE].nan_to_num(nan=-torch.inf)
    highest = F.max_pool2d(heat.movedim(-1, 1), 3, stride=1, padding=1).movedim(1, -1)
    peaks = torch.where(heat >= highest, heat, -torch.inf).flatten(1)
    odds, places = peaks.topk(min(most, peaks.shape[1]), dim=1)
    classes = heat.shape[-1]
    kind, cells = places % classes, places // classes
    shape = answers[..., -SHAPE:].reshape(count, height * width, SHAPE).nan_to_num()
    own = shape.gather(1, cells[..., None].expand(-1, -1, SHAPE))
    middles = _middles((height, width), answers).reshape(-1, 2)[cells]
    sides = own[..., :2].clamp(max=20).exp()
    centres = middles + own[..., 2:]
    corners = torch.cat([centres - sides / 2, centres + sides / 2], dim=-1) * stride
    edges = corners.new_tensor([width, height, width, height]) * stride
    corners = torch.minimum(corners.clamp(min=0), edges)
    kind = torch.where(odds == -torch.inf, PADDING, kind)
    return torch.cat([kind[..., None].to(corners), corners, odds[..., None]], dim=-1)


def _middles(grid: tuple[int, int], like: Tensor) -> Tensor:
    """The cells' middles in cells, (h, w, 2) as (x, y)."""
    height, width = (torch.arange(size).to(like) + 0.5 for size in grid)
    return torch.stack(
        [width.expand(grid), height[:, None].expand(grid)],
        dim=-1,
    )
