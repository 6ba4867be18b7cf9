"""Aggregation: many clients' knowledge into one. Pure functions; the first axis is the client."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedkd.exchange.messages import Tensors


def average_models(models: Sequence[Tensors], counts: Sequence[int]) -> dict[str, Tensor]:
    """The mean of equal models, weighed by example counts. McMahan et al. 2017, arXiv:1602.05629.

    Floating tensors, BatchNorm's running statistics among them, are averaged in float64; integer
    ones (BatchNorm's batch counters) take the first model's value.

    Args:
        models: K state dicts with the same names and shapes.
        counts: K example counts, at least one of them positive.

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
    """The plain mean over clients, (K, N, C) -> (N, C). FedMD: Li & Wang 2019, arXiv:1910.03581."""
    return knowledge.float().mean(dim=0)


def mean_by_class(means: Tensor, counts: Tensor) -> Tensor:
    """Each class's mean over clients, by how many samples each holds; zeros where nobody has any.

    FedProto, Tan et al. 2022, arXiv:2105.00243: the mean over all clients' samples of a class.

    Args:
        means: each client's mean of each class (K, C, F); what a client without samples says of a
            class counts for nothing.
        counts: int64 (K, C), at least 0.

    Returns:
        (C, F).
    """
    shares = counts.double() / counts.sum(dim=0).clamp(min=1)
    return (shares[:, :, None] * means.double()).sum(dim=0).to(means.dtype)


def by_class_shares(probabilities: Tensor, counts: Tensor) -> Tensor:
    """The mean of probabilities in which a client counts for a class by its share of the samples.

    So clients that never saw a class do not outvote those that did. The weights n_k^c / n^c are
    those of FedGen (Zhu et al. 2021, arXiv:2105.10056) and FedFTG.

    Args:
        probabilities: (K, N, C).
        counts: int64 (K, C), how many samples of each class a client holds, at least 0.

    Returns:
        (N, C), rows summing to 1, or to 0 where only classes that nobody holds were named; those
        have probability 0.
    """
    shares = counts.double() / counts.sum(dim=0).clamp(min=1)
    weighed = (probabilities.double() * shares[:, None]).sum(dim=0)
    return (weighed / weighed.sum(dim=1, keepdim=True).clamp(min=1e-300)).float()


def entropy_reduction(probabilities: Tensor, *, temperature: float) -> Tensor:
    """ERA, softmax(mean p / T): sharper, the lower T. Itahara et al. 2021, arXiv:2008.06180.

    Args:
        probabilities: (K, N, C), rows summing to 1.
        temperature: T > 0; the paper's 0.1.

    Returns:
        (N, C), rows summing to 1.

    Raises:
        ValueError: temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"Expected temperature={temperature} > 0.")
    return torch.softmax(mean(probabilities) / temperature, dim=1)
