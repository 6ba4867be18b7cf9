"""One class out of C, at one place or at many: logits on the last axis."""

import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge import label
from fedkd.tasks.base import Likelihood
from fedkd.tasks.bounded import OF_LOGITS
from fedkd.tasks.motion import Motion

IGNORED = -100
"""The target of a place that does not count, such as padding."""


def nll(answers: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of logits (N, *S, C) with classes (N, *S): (N,), in nats, a mean over places.

    Places whose target is `IGNORED` do not count; a record without any other costs 0.
    """
    if targets.dim() == 1:
        return F.cross_entropy(answers, targets, reduction="none")
    places = F.cross_entropy(
        answers.flatten(0, -2), targets.flatten(), reduction="none", ignore_index=IGNORED
    )
    counted = (targets != IGNORED).flatten(1)
    return places.reshape(counted.shape).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def mean_nll(answers: Tensor, targets: Tensor) -> Tensor:
    """The mean of `nll`, a scalar; of one class a record in one kernel."""
    return F.cross_entropy(answers, targets) if targets.dim() == 1 else nll(answers, targets).mean()


def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """`knowledge.label.kd` of logits (N, *S, C): (N,), a mean over places."""
    places = label.kd(student, teacher, temperature=temperature)
    return places if places.dim() == 1 else places.flatten(1).mean(dim=1)


def decide(answers: Tensor) -> Tensor:
    """(N, *S, C) -> (N, *S): the likeliest class."""
    return answers.argmax(dim=-1)


def moved(targets: Tensor, motion: Motion) -> Tensor:
    """Masks (N, H, W) as their images moved, without a class where there was no image."""
    return targets if targets.dim() == 1 else motion.of_pixels(targets, beyond=IGNORED)


CATEGORICAL = Likelihood(nll, mean_nll, divergence, decide, moved=moved, bounded=OF_LOGITS)
