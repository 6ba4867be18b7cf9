"""What several detectors' answers on one grid come to together."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.tasks.boxes.grid import SHAPE


def plain(answers: Tensor) -> Tensor:
    """(K, N, h, w, C + 4) -> (N, h, w, C + 4): the mean of all numbers."""
    return answers.mean(dim=0)


def certain(answers: Tensor) -> Tensor:
    """As `plain`, a mean in each cell in which the sure weigh more.

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
