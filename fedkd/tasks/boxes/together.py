"""What several detectors' answers on one grid come to together."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.tasks.boxes import grid
from fedkd.tasks.boxes.geometry import PADDING, overlap
from fedkd.tasks.boxes.grid import SHAPE

_SAME = 0.55
"""The overlap from which on two boxes are one, as published."""
_FAINT = 0.05
"""The probability below which a box is not looked at."""


def certain(answers: Tensor) -> Tensor:
    """(K, N, h, w, C + 4) -> (N, h, w, C + 4): a mean in each cell in which the sure weigh more.

    Of a class's logits a detector weighs exp(-H), H the entropy in nats of whether a centre is
    there, as classifiers do in `learning.consensus.average_confidence`. Of shapes it weighs as much
    as it holds a centre there likely: who sees nothing in a cell knows no shape.
    """
    heat, shapes = answers[..., :-SHAPE], answers[..., -SHAPE:]
    seen = heat.sigmoid()
    entropy = -(seen * F.logsigmoid(heat) + (1 - seen) * F.logsigmoid(-heat))
    # In logarithms, so that cells in which nobody sees anything have weights too.
    likely = F.logsigmoid(heat.amax(dim=-1, keepdim=True))
    means = ((-entropy).softmax(dim=0) * heat, likely.softmax(dim=0) * shapes)
    return torch.cat([each.sum(dim=0) for each in means], dim=-1)


def fused(answers: Tensor, *, stride: int) -> Tensor:
    """As `certain`, by the boxes in the answers: weighted box fusion, drawn on the grid again.

    Solovyev et al. 2021, arXiv:1910.13302. The boxes of all K detectors, the likeliest first, join
    the group whose mean box they overlap by more than 0.55, or begin one. A group's box is the mean
    of its boxes by their probability. It is as likely as they are on average, times the share of
    detectors of which it has boxes, so that one that stands alone counts 1 / K.
    """
    detectors, _, height, width, numbers = answers.shape
    found = torch.stack([grid.found(each, stride=stride) for each in answers], dim=1)
    records = [_fused(each.flatten(0, 1), detectors) for each in found]
    most = max(1, *map(len, records))
    none = answers.new_tensor([PADDING, 0, 0, 0, 0, -torch.inf]).repeat(len(records), most, 1)
    for row, boxes in zip(none, records, strict=True):
        row[: len(boxes)] = boxes
    classes = numbers - SHAPE
    return grid.answered(none, (height, width), stride=stride, classes=classes)


def _fused(boxes: Tensor, detectors: int) -> Tensor:
    """The boxes (M, 6) of one record in all detectors' answers to those of their groups."""
    likely = boxes[:, 5].sigmoid()
    order = likely.argsort(descending=True)
    boxes, likely = boxes[order], likely[order]
    groups: list[list[int]] = []
    means = boxes.new_full((len(boxes), 5), PADDING)
    for number in range(int((likely > _FAINT).sum())):
        own = boxes[number, :5]
        best, shared = _most_alike(own, means[: len(groups)])
        if shared <= _SAME:
            means[len(groups)] = own
            groups.append([number])
            continue
        groups[best].append(number)
        weights = likely[groups[best], None]
        means[best] = (weights * boxes[groups[best], :5]).sum(dim=0) / weights.sum()
    rows = [
        torch.cat(
            [mean, (likely[each].mean() * min(len(each), detectors) / detectors).logit()[None]]
        )
        for each, mean in zip(groups, means[: len(groups)], strict=True)
    ]
    return torch.stack(rows) if rows else boxes[:0]


def _most_alike(box: Tensor, others: Tensor) -> tuple[int, float]:
    """Which of boxes (M, 5) a box (5,) overlaps most, and by how much; by 0 of another class."""
    if not len(others):
        return -1, 0.0
    shared = overlap(box[None, 1:], others[:, 1:])[0]
    best, whose = torch.where(others[:, 0] == box[0], shared, 0.0).max(dim=0)
    return int(whose), best.item()
