"""Means, weighed by what clients say that they hold, which is bounded."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fedkd.exchange.messages import Tensors


def bounded(claimed: Tensor, most: float | None = None) -> Tensor:
    """What clients say that they hold, so that none has more than a share of all.

    A count is a client's own word. Without a bound, whoever claims a billion examples is the mean
    of all. A claim above the share becomes exactly that share of what is then counted; of one by
    class all classes shrink alike, for under label skew a client may well be the only one to hold
    a class. It holds for each client alone: of f that lie together each may have the share.

    Args:
        claimed: counts (K,), or by class (K, C); at least 0.
        most: the share in (0, 1]; one that is less than 1 / K counts as 1 / K. None is half way
            from a fair share to all, (1 + 1 / K) / 2. Clients that claim nothing are not among K.

    Returns:
        float64, of the same shape; the very counts where nobody is above the share.
    """
    counts = claimed.double()
    sizes = counts if counts.dim() == 1 else counts.sum(dim=1)
    limit = _limit(sizes[sizes > 0].sort(descending=True).values.tolist(), most)
    kept = torch.where(sizes > limit, limit / sizes, 1.0)
    return counts * (kept if counts.dim() == 1 else kept[:, None])


def _limit(sizes: Sequence[float], most: float | None) -> float:
    """What the largest are cut to, so that each has the share of what is left; sizes descend."""
    fair = 1 / max(1, len(sizes))
    share = (1 + fair) / 2 if most is None else max(most, fair)
    for cut, size in enumerate(sizes):
        left = sum(sizes[cut:])
        # With `cut` clients at the limit L: L = share * (cut * L + left).
        limit = share * left / (1 - cut * share) if cut * share < 1 else math.inf
        if size <= limit:
            return limit if cut else math.inf
    return min(sizes, default=math.inf)  # but for rounding: all are cut to one size


def average_models(models: Sequence[Tensors], counts: Sequence[float]) -> dict[str, Tensor]:
    """The mean of equal models, weighed by example counts. McMahan et al. 2017, arXiv:1602.05629.

    Floating tensors, BatchNorm's running statistics among them, are averaged in float64; integer
    ones (BatchNorm's batch counters) take the first model's value.

    Args:
        models: K state dicts with the same names and shapes.
        counts: K example counts, `bounded` or not, at least one of them positive.

    Raises:
        ValueError: no model, or counts that do not fit.
    """
    total = sum(counts)
    if not models or len(models) != len(counts) or total <= 0 or min(counts) < 0:
        raise ValueError(f"Expected a count >= 0 for each of {len(models)} models, got {counts}.")
    averaged = {}
    for name, first in models[0].items():
        if not first.is_floating_point():
            averaged[name] = first.clone()
            continue
        mean = torch.zeros(first.shape, dtype=torch.float64)
        for model, count in zip(models, counts, strict=True):
            mean += model[name].double() * (count / total)
        averaged[name] = mean.to(first.dtype)
    return averaged


def mean(knowledge: Tensor) -> Tensor:
    """The mean over clients, (K, N, *A) -> (N, *A). FedMD: Li & Wang 2019, arXiv:1910.03581."""
    return knowledge.float().mean(dim=0)


def mean_by_class(means: Tensor, counts: Tensor) -> Tensor:
    """Each class's mean over clients, by how many samples each holds; zeros where nobody has any.

    FedProto, Tan et al. 2022, arXiv:2105.00243: the mean over all clients' samples of a class.

    Args:
        means: each client's mean of each class (K, C, F); what a client without samples says of a
            class counts for nothing.
        counts: (K, C), at least 0.

    Returns:
        (C, F).
    """
    shares = _shares(counts)
    return (shares[:, :, None] * means.double()).sum(dim=0).to(means.dtype)


def _shares(counts: Tensor) -> Tensor:
    """Counts (K, C) -> each client's share of each class (K, C); zeros where nobody has any."""
    total = counts.double().sum(dim=0)
    return counts.double() / torch.where(total > 0, total, 1.0)


def by_class_shares(probabilities: Tensor, counts: Tensor) -> Tensor:
    """The mean of probabilities in which a client counts for a class by its share of the samples.

    So clients that never saw a class do not outvote those that did. The weights n_k^c / n^c are
    those of FedGen (Zhu et al. 2021, arXiv:2105.10056) and FedFTG.

    Args:
        probabilities: (K, N, C).
        counts: (K, C), how many samples of each class a client holds, at least 0.

    Returns:
        (N, C), rows summing to 1, or to 0 where only classes that nobody holds were named; those
        have probability 0.
    """
    shares = _shares(counts)
    weighed = (probabilities.double() * shares[:, None]).sum(dim=0)
    return (weighed / weighed.sum(dim=1, keepdim=True).clamp(min=1e-300)).float()


def entropy_reduction(probabilities: Tensor, *, temperature: float) -> Tensor:
    """ERA, softmax(mean p / T): sharper, the lower T. Itahara et al. 2021, arXiv:2008.06180.

    Args:
        probabilities: (K, N, *S, C), summing to 1 over classes, or all 0 at a place of which
            nothing is said.
        temperature: T > 0; the paper's 0.1.

    Returns:
        (N, *S, C), summing to 1 over classes, or all 0 where nobody says anything.

    Raises:
        ValueError: temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"Expected temperature={temperature} > 0.")
    agreed = mean(probabilities)
    sharpened = torch.softmax(agreed / temperature, dim=-1)
    return torch.where((agreed != 0).any(dim=-1, keepdim=True), sharpened, 0.0)
