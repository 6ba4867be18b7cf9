"""Which records stand for all of their class: herding, as in iCaRL, arXiv:1611.07725."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.data.types import Samples
from fedkd.learning.evaluate import evaluating
from fedkd.learning.teacher_statistics import with_features
from fedkd.rows import Rows, batches, device_of, one, take
from fedkd.tasks import Targets


def herd(features: Tensor, count: int) -> Tensor:
    """The rows whose mean stays nearest to the mean of all, one after the other.

    Rebuffi et al. 2017, arXiv:1611.07725, algorithm 4. The first m of them are the choice of m.

    Args:
        features: (N, F).
        count: how many, or all if there are fewer.

    Returns:
        int64 (min(count, N),), each row once, in the order of choice.
    """
    mean, total = features.mean(dim=0), torch.zeros_like(features[0])
    left = torch.ones(len(features), dtype=torch.bool)
    rows = []
    for number in range(1, min(count, len(features)) + 1):
        distances = (mean - (total + features) / number).square().sum(dim=1)
        row = int(distances.masked_fill(~left, torch.inf).argmin())
        left[row] = False
        total = total + features[row]
        rows.append(row)
    return torch.tensor(rows, dtype=torch.int64)


def chosen(model: nn.Module, samples: Samples, targets: Targets, count: int) -> dict[int, Tensor]:
    """The numbers of the samples that stand for each class, in the order of choice.

    By what enters the model's head, each record's of length 1. Where records have no class they are
    of one, 0.

    Raises:
        ConfigError: the model has no head.
    """
    labels = samples.y if targets == "classes" else torch.zeros(len(samples), dtype=torch.int64)
    rows = {label: (labels == label).nonzero()[:, 0] for label in sorted(set(labels.tolist()))}
    return {
        label: own[herd(_features(model, take(samples.x, own)), count)]
        for label, own in rows.items()
    }


def _features(model: nn.Module, x: Rows) -> Tensor:
    with evaluating(model), torch.no_grad():
        asked = (one(batch) for batch in batches(x))
        parts = [with_features(model, batch)[1].to(device_of(x)) for batch in asked]
    return F.normalize(torch.cat(parts), dim=1)
