"""Label-distribution inference: which classes a client holds, read off its answers."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LabelInference:
    """Guesses of the clients' class shares beside the truth."""

    guessed: Tensor
    """(K, C), rows sum to 1."""
    truth: Tensor
    """(K, C)."""
    error: float
    """Total variation between guess and truth, mean over clients: 0 is right, 1 wholly wrong."""
    blind: float
    """The same for who guesses that every client holds what all together hold."""


def infer(answers: Mapping[int, Tensor], counts: Tensor) -> LabelInference:
    """Guess each client's class shares from its probabilities on inputs that all answer.

    A client leans towards the classes that it holds: its mean probability of a class, times how
    far that lies above the mean over all clients, in shares. An attempt of ours; the setting is
    that of arXiv:2502.08001.

    Args:
        answers: logits (N, C) by client, of its first round, before it heard of the others.
        counts: int64 (clients, C), the truth.
    """
    means = torch.stack([logits.float().softmax(dim=-1).mean(dim=0) for logits in answers.values()])
    prior = means.mean(dim=0)
    leaning = means**2 / prior.clamp(min=1e-6)
    guessed = leaning / leaning.sum(dim=1, keepdim=True)
    truth = counts[list(answers)].double()
    truth = truth / truth.sum(dim=1, keepdim=True).clamp(min=1)
    pooled = truth.mean(dim=0).expand_as(truth)
    return LabelInference(
        guessed, truth.float(), _distance(guessed.double(), truth), _distance(pooled, truth)
    )


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().sum(dim=1).mean()) / 2
