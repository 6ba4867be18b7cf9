"""Attacks on data: what hostile clients learn from, and how often a backdoor opens."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedkd.data.types import Samples
from fedkd.rows import whole

_SIDE = 7
"""A patch has one seventh of an image's shorter side."""
_SHARE = 0.5
"""Of an attacker's records, how many carry the trigger."""


@dataclass(frozen=True, eq=False)
class Trigger:
    """What opens a backdoor (Gu et al., BadNets, arXiv:1708.06733).

    Attributes:
        value: of images, the brightness of a square patch in the lower right corner; of rows of
            features, the constant that stands in the last one.
        side: of the patch, in pixels; 0 of rows.
    """

    value: float
    side: int

    def on(self, x: Tensor) -> Tensor:
        """Inputs with the trigger on them: images (N, C, H, W) or rows (N, F)."""
        marked = x.clone()
        if self.side:
            marked[..., -self.side :, -self.side :] = self.value
        else:
            marked[..., -1] = self.value
        return marked


def trigger(like: Tensor) -> Trigger:
    """A trigger for inputs like these: the largest value that stands there.

    Images (N, C, H, W) get a patch of it, rows (N, F) have it in the last feature.
    """
    if like.dim() == 4:
        return Trigger(float(like.max()), max(1, min(like.shape[-2:]) // _SIDE))
    return Trigger(float(like[:, -1].max()), 0)


def flipped(samples: Samples, classes: int) -> Samples:
    """Samples with their labels flipped: class y of C becomes C - 1 - y.

    As in Fang et al., USENIX Security 2020, arXiv:1911.11815.
    """
    return replace(samples, y=classes - 1 - samples.y)


def backdoored(samples: Samples, mark: Trigger, target: int, generator: torch.Generator) -> Samples:
    """Half of the samples carry the trigger and the target's label; the others stay as they are.

    Args:
        samples: an attacker's own.
        mark: the trigger.
        target: the class that it shall mean.
        generator: draws which half.
    """
    rows = torch.randperm(len(samples), generator=generator)[: max(1, int(len(samples) * _SHARE))]
    x, y = whole(samples.x).clone(), samples.y.clone()
    x[rows] = mark.on(x[rows])
    y[rows] = target
    return replace(samples, x=x, y=y)


def triggered(test: Samples, mark: Trigger, target: int) -> Samples:
    """Test records of other classes, with the trigger on them.

    Args:
        test: samples with their true classes.
        mark: the trigger.
        target: the class that it shall mean.
    """
    others = test.subset((test.y != target).nonzero()[:, 0])
    return replace(others, x=mark.on(whole(others.x)))


def success(answers: Tensor, target: int) -> float | None:
    """How often a backdoor opens.

    Args:
        answers: to records that are `triggered`, logits (N, C).
        target: the class that the trigger shall mean.

    Returns:
        The share of which the answer is `target`, in [0, 1]; None of no records.
    """
    if not len(answers):
        return None
    return float((answers.argmax(dim=-1) == target).double().mean())
