"""Yes or no, of each of L labels by itself: one logit a label."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge import label
from fedkd.tasks.base import Likelihood
from fedkd.tasks.bounded import OF_LOG_ODDS


def nll(answers: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of logits (N, L) with yes (1) or no (0) (N, L): (N,), in nats.

    A mean over labels.
    """
    return F.binary_cross_entropy_with_logits(
        answers, targets.to(answers.dtype), reduction="none"
    ).mean(dim=-1)


def mean_nll(answers: Tensor, targets: Tensor) -> Tensor:
    """The mean of `nll`, a scalar, in one kernel."""
    return F.binary_cross_entropy_with_logits(answers, targets.to(answers.dtype))


def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T^2 * KL(teacher || student) of logits (N, L): (N,), in nats, a mean over labels.

    Each label is a class against its absence, whose logit is 0: `knowledge.label.kd` of the two.
    """
    return label.kd(_both(student), _both(teacher), temperature=temperature).mean(dim=-1)


def decide(answers: Tensor) -> Tensor:
    """(N, L) -> (N, L): 1 where yes is the likelier, else 0."""
    return (answers > 0).long()


def _both(logits: Tensor) -> Tensor:
    """(N, L) -> (N, L, 2): the logits of yes and no."""
    return torch.stack([logits, torch.zeros_like(logits)], dim=-1)


BERNOULLI = Likelihood(nll, mean_nll, divergence, decide, bounded=OF_LOG_ODDS)
