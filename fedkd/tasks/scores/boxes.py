"""Average precision of boxes, as COCO has it, from counters that parties may add.

The exact figure needs every box's confidence, in one order over all images. Here hits and misses
are counted in bins of confidence (`curves`), and those of one bin count as tied.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedkd.specs import TensorSpec
from fedkd.tasks.base import Score, mean_of
from fedkd.tasks.boxes.geometry import PADDING, overlap
from fedkd.tasks.boxes.grid import MOST
from fedkd.tasks.scores.curves import BINS, bin_of

_RECALLS = 101
"""At how many recalls precision is read, from 0 to 1 (Lin et al. 2014, arXiv:1405.0312)."""


def average_precision_of_boxes(name: str, *overlaps: float) -> Callable[[int], Score]:
    """A score from found boxes (N, K, 6), see `boxes.grid.found`, and true ones (N, M, 5).

    In the order of their confidence the boxes found in an image take each the true box of their
    class that they overlap most and nobody has taken; they are hits where that is at least as much
    as is asked. Precision at a recall is the best at that recall or above; the figure is its mean
    over 101 recalls, then over overlaps, then over classes that there are. Counters are int64 (2,
    overlaps, C, BINS): misses, then hits.

    Args:
        name: of the score.
        overlaps: intersections over unions, in (0, 1].
    """

    def score(classes: int) -> Score:
        def tally(found: Tensor, targets: Tensor) -> Tensor:
            hit = matched(found, targets, overlaps)
            real = (found[..., 0] != PADDING)[:, None].expand_as(hit)
            kind = found[..., 0].long()[:, None].expand_as(hit)
            which = torch.arange(len(overlaps))[None, :, None].expand_as(hit)
            place = bin_of(found[..., 5])[:, None].expand_as(hit)
            bins = ((hit.long() * len(overlaps) + which) * classes + kind) * BINS + place
            counts = torch.bincount(bins[real], minlength=2 * len(overlaps) * classes * BINS)
            return counts.reshape(2, len(overlaps), classes, BINS)

        def totals(targets: Tensor) -> Tensor:
            true = _of_each(targets, classes)
            return torch.stack([torch.full_like(true, len(targets) * MOST), true])[:, None, :, None]

        def read(counters: Tensor, totals: Tensor) -> dict[str, Any]:
            values = _average_precision(counters, totals[1].squeeze(-1)).mean(dim=0)
            by_class = [None if math.isnan(value) else value for value in values.tolist()]
            return {made.figure: mean_of(by_class), made.by_class: by_class}

        shape = (2, len(overlaps), classes, BINS)
        made = Score(name, tally, read, TensorSpec(shape, torch.int64, low=0), totals=totals)
        return made

    return score


def matched(found: Tensor, targets: Tensor, overlaps: tuple[float, ...]) -> Tensor:
    """Which found boxes (N, K, 6), the surest first, are hits among true ones (N, M, 5).

    bool (N, overlaps, K), by the rule of `average_precision_of_boxes`.
    """
    alike = (found[:, :, None, 0] == targets[:, None, :, 0]) & (targets[:, None, :, 0] != PADDING)
    shared = torch.where(alike, overlap(found[..., 1:5], targets[..., 1:]), -1.0)
    least = torch.tensor(overlaps).to(shared)[None, :, None]
    free = alike.new_ones(len(found), len(overlaps), targets.shape[1])
    hits = []
    for box in shared.unbind(dim=1):
        reachable = torch.where(free & (box[:, None] >= least), box[:, None], -1.0)
        best, whose = reachable.max(dim=2)
        hits.append(best >= 0)
        taken = torch.zeros_like(free).scatter(2, whose[..., None], hits[-1][..., None])
        free = free & ~taken
    return torch.stack(hits, dim=2)


def _of_each(targets: Tensor, classes: int) -> Tensor:
    """How many true boxes there are of each class: int64 (C,)."""
    kind = targets[..., 0].flatten()
    return torch.bincount(kind[kind != PADDING].long(), minlength=classes)


def _average_precision(counters: Tensor, true: Tensor) -> Tensor:
    """(2, overlaps, C, BINS) and (1, C) -> (overlaps, C), NaN of a class without a true box."""
    above = counters.double().flip(-1).cumsum(dim=-1)
    precision = above[1] / (above[0] + above[1]).clamp(min=1)
    best = precision.flip(-1).cummax(dim=-1).values.flip(-1)
    recall = above[1] / true[..., None]
    # As numpy's linspace rounds them in COCO's own code, on which hang recalls such as 57/100.
    asked = (torch.arange(_RECALLS).double() * 0.01).expand(*recall.shape[:-1], -1)
    first = torch.searchsorted(recall.contiguous(), asked.contiguous())
    padded = torch.cat([best, best.new_zeros(*best.shape[:-1], 1)], dim=-1)
    values = padded.gather(-1, first).mean(dim=-1)
    return torch.where(true > 0, values, torch.nan)
