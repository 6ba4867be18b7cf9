"""Which records stand for all of their kind: herding, as in iCaRL, arXiv:1611.07725."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.data.types import Samples
from fedkd.learning.evaluate import evaluating
from fedkd.learning.teacher_statistics import with_features
from fedkd.rows import batches, device_of, one


def herd(features: Tensor, count: int) -> Tensor:
    """The rows whose mean stays nearest to the mean of all, one after the other.

    Rebuffi et al. 2017, arXiv:1611.07725, algorithm 4. The first m of them are the choice of m.

    Args:
        features: (N, F).
        count: how many, at most N.

    Returns:
        int64 (count,), each row once, in the order of choice.
    """
    mean, total = features.mean(dim=0), torch.zeros_like(features[0])
    left = torch.ones(len(features), dtype=torch.bool)
    chosen = []
    for number in range(1, min(count, len(features)) + 1):
        distances = (mean - (total + features) / number).square().sum(dim=1)
        row = int(distances.masked_fill(~left, torch.inf).argmin())
        left[row] = False
        total = total + features[row]
        chosen.append(row)
    return torch.tensor(chosen, dtype=torch.int64)


def exemplars(model: nn.Module, samples: Samples, count: int) -> Samples:
    """The samples that `herd` chooses by what enters the model's head, each of length 1.

    Raises:
        ConfigError: the model has no head.
    """
    with evaluating(model), torch.no_grad():
        asked = (one(x) for x in batches(samples.x))
        parts = [with_features(model, x)[1].to(device_of(samples.x)) for x in asked]
    return samples.subset(herd(F.normalize(torch.cat(parts), dim=1), count))
