"""What several teachers say together: logits (K, N, *S, C) of K teachers to logits (N, *S, C).

For one class a record there is no S; for one a pixel or a token there is. `average_logits` and
`one_of` suit any answers, (K, N, *A) to (N, *A). Logits that are all 0, as at a text's padding, say
nothing: where all teachers' are, so are those of a consensus.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from fedkd.knowledge.checks import has_shape
from fedkd.knowledge.places import spoken
from fedkd.tasks import Likelihood

Average = Literal["logits", "probabilities", "confidence"]
"""A consensus that needs nothing but the logits, by name; see `average`."""


def average(logits: Tensor, *, of: Average) -> Tensor:
    """`average_logits`, `average_probabilities` or `average_confidence`."""
    averages = {
        "logits": average_logits,
        "probabilities": average_probabilities,
        "confidence": average_confidence,
    }
    return averages[of](logits)


def of_task(likelihood: Likelihood) -> Callable[[Tensor], Tensor]:
    """How a task's answers come together where nothing else is asked for: its own way, or a mean.

    A function of (K, N, *A) to (N, *A).
    """
    return likelihood.mix or average_logits


def average_logits(logits: Tensor) -> Tensor:
    """(K, N, *A) -> (N, *A): the mean, in which a loud teacher outvotes a quiet one."""
    return logits.mean(dim=0)


def average_probabilities(logits: Tensor) -> Tensor:
    """(K, N, *S, C) -> (N, *S, C): the logarithm of the teachers' mean probability."""
    mean = torch.logsumexp(torch.log_softmax(logits, dim=-1), dim=0) - math.log(len(logits))
    return _silent_where(logits, mean)


def average_confidence(logits: Tensor) -> Tensor:
    """(K, N, *S, C) -> (N, *S, C): log of a mean probability in which the sure weigh more.

    For each place a teacher weighs exp(-H), H the entropy of its answer in nats: who hesitates
    between two classes weighs half as much as who is certain. Teachers are weighed by entropy in
    Kwon et al. 2020, ICASSP; this weight is our own.
    """
    log_p = torch.log_softmax(logits, dim=-1)
    entropy = -(log_p.exp() * log_p).sum(dim=-1)
    log_weights = torch.log_softmax(-entropy, dim=0)
    return _silent_where(logits, torch.logsumexp(log_weights[..., None] + log_p, dim=0))


def _silent_where(logits: Tensor, agreed: Tensor) -> Tensor:
    """A consensus with zeros where no teacher says anything."""
    return torch.where(spoken(logits).any(dim=0)[..., None], agreed, 0.0)


def weighted(logits: Tensor, weights: Tensor) -> Tensor:
    """(K, N, *A) -> (N, *A): the mean of logits in which teachers weigh (K,), not all 0."""
    weights = weights.to(logits.device)
    return (weights.reshape(-1, *[1] * (logits.dim() - 1)) * logits).sum(dim=0) / weights.sum()


def class_weights(counts: Tensor) -> Tensor:
    """Sample counts n (K, C), at least 0 -> weights w (K, C) with w_k^c = n_k^c / n^c.

    FedGen, Zhu et al. 2021, arXiv:2105.10056, and FedFTG, Zhang et al. 2022, arXiv:2203.09249. A
    class that nobody has seen is left to all alike.
    """
    total = counts.sum(dim=0)
    return torch.where(total > 0, counts / torch.where(total > 0, total, 1.0), 1 / len(counts))


def by_class(logits: Tensor, counts: Tensor) -> Tensor:
    """(K, N, *S, C) -> (N, *S, C): a mean probability, each class left to who has seen it.

    p_c = sum_k w_k^c p_k^c, renormalised, with the `class_weights` w.

    Args:
        logits: of the teachers.
        counts: n (K, C), at least 0: how many samples of each class a teacher has learned from. A
            class that nobody has seen is left to all alike.

    Returns:
        Logarithms of probabilities.

    Raises:
        ValueError: the shapes do not match, or a count is negative.
    """
    has_shape((logits.shape[0], logits.shape[-1]), counts=counts)
    if (counts < 0).any():
        raise ValueError(f"counts of {counts.min().item():g}: expected at least 0 samples")
    weights = class_weights(counts.to(logits))
    log_p = torch.log_softmax(logits, dim=-1)
    # A class that a teacher has not seen weighs exp(-inf) = 0; log_softmax renormalises.
    log_weights = weights.log().reshape(len(logits), *[1] * (logits.dim() - 2), -1)
    agreed = torch.log_softmax(torch.logsumexp(log_p + log_weights, dim=0), dim=-1)
    return _silent_where(logits, agreed)


def one_of(logits: Tensor, generator: torch.Generator) -> Tensor:
    """(K, N, *A) -> (N, *A): the answers of one teacher, drawn anew at each call.

    Called once a batch this is Fukuda et al. 2017, Interspeech: the student sees every teacher's
    own opinion in turn, not their mean.
    """
    return logits[int(torch.randint(len(logits), (), generator=generator))]
