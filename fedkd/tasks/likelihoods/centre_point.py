"""Boxes, by a grid that says where centres are and how large the boxes around them."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.tasks.base import Likelihood
from fedkd.tasks.boxes import grid
from fedkd.tasks.boxes.geometry import PADDING, moved
from fedkd.tasks.boxes.grid import SHAPE
from fedkd.tasks.boxes.together import certain

_SURE = math.log(0.3 / 0.7)
"""The log odds from which on a box is one: a probability of 0.3, as CenterNet's code has it."""
_NEAR = 0.3
"""How near to a centre a cell must be to learn of the box's shape."""


def centre_point(
    classes: int, stride: int, mix: Callable[[Tensor], Tensor] | None = certain
) -> Likelihood:
    """The likelihood of boxes (N, M, 5) given answers (N, h, w, C + 4), as `boxes.grid` has them.

    `nll` is CenterNet's: the penalty-reduced focal loss of where centres are (Zhou et al. 2019,
    arXiv:1904.07850, its alpha of 2 and beta of 4), a sum over cells by the number of boxes, and
    the absolute error of shapes, a mean over cells near centres. `divergence` is T^2 KL of
    Bernoulli distributions, teacher to student, a sum over cells by the number of boxes that the
    teacher expects, and the absolute difference of shapes, weighed by how likely the teacher holds
    a centre. `decide` gives the boxes whose probability is above 0.3.

    Args:
        classes: C.
        stride: the cells' side s, in pixels.
        mix: what answers of several models come to, one of `boxes.together`; None: their mean.
    """
    draw = partial(grid.drawn, stride=stride, classes=classes)

    def nll(answers: Tensor, targets: Tensor) -> Tensor:
        maps = draw(targets, (answers.shape[1], answers.shape[2]))
        centres = _focal(answers[..., :-SHAPE], maps.heat).flatten(1).sum(dim=1)
        near = torch.where(maps.near >= _NEAR, maps.near, 0.0)
        shapes = _weighed(answers[..., -SHAPE:], maps.shape, near)
        return centres / maps.boxes.clamp(min=1) + shapes

    def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        ours, theirs = (each[..., :-SHAPE] / temperature for each in (student, teacher))
        told = theirs.sigmoid()
        cells = told * (F.logsigmoid(theirs) - F.logsigmoid(ours))
        cells = cells + (1 - told) * (F.logsigmoid(-theirs) - F.logsigmoid(-ours))
        likely = teacher[..., :-SHAPE].sigmoid()
        expected = likely.flatten(1).sum(dim=1).clamp(min=1)
        where = likely.amax(dim=-1)
        shapes = _weighed(student[..., -SHAPE:], teacher[..., -SHAPE:], where)
        return temperature**2 * cells.flatten(1).sum(dim=1) / expected + shapes

    def decide(answers: Tensor) -> Tensor:
        boxes = grid.found(answers, stride=stride)
        none = boxes.new_tensor([PADDING, 0, 0, 0, 0])
        return torch.where(boxes[..., 5:] > _SURE, boxes[..., :5], none)

    return Likelihood(nll, lambda a, y: nll(a, y).mean(), divergence, decide, mix=mix, moved=moved)


def _focal(logits: Tensor, heat: Tensor) -> Tensor:
    """CenterNet's loss of each cell and class, in nats."""
    probability = logits.sigmoid()
    centre = -(1 - probability).square() * F.logsigmoid(logits)
    beside = -((1 - heat) ** 4) * probability.square() * F.logsigmoid(-logits)
    return torch.where(heat == 1, centre, beside)


def _weighed(ours: Tensor, theirs: Tensor, weights: Tensor) -> Tensor:
    """The absolute difference of shapes (N, h, w, 4), summed, a mean by weights (N, h, w): (N,)."""
    away = (ours - theirs).abs().sum(dim=-1)
    total = weights.flatten(1).sum(dim=1).clamp(min=1e-6)
    return (weights * away).flatten(1).sum(dim=1) / total
