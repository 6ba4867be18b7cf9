"""Answers over many classes as the likeliest of each place, and all others as one.

A place takes 6 bytes a class that is named, in place of 2 bytes a class that there is: of a
vocabulary of 1,500 tokens and 16 named, a thirtieth.
"""

import math

import torch
from torch import Tensor

from fedkd.exchange.codec import Expected, half
from fedkd.exchange.messages import Tensors
from fedkd.specs import TensorSpec

_LEAST = -100.0
"""The least logarithm of a probability that is sent."""


def expected(name: str, shape: tuple[int, ...], k: int) -> Expected:
    """What `sparse` of logits of this shape looks like."""
    *places, classes = shape
    return {
        f"{name}/ids": TensorSpec((*places, k), torch.int32, low=0, high=classes - 1),
        f"{name}/values": TensorSpec((*places, k), torch.float16, low=_LEAST, high=0),
    }


def sparse(name: str, logits: Tensor, k: int) -> dict[str, Tensor]:
    """The k likeliest classes of each place, and the logarithms of their probabilities.

    Args:
        name: under which they are sent.
        logits: (..., C); where all are 0, as at a text's padding, nothing is said.
        k: from 2 to C - 1.

    Returns:
        `NAME/ids`, int32 (..., k), and `NAME/values`, float16 (..., k), all 0 where nothing is
        said: two classes cannot both be certain.
    """
    log_p, ids = torch.log_softmax(logits.float(), dim=-1).topk(k, dim=-1)
    said = (logits != 0).any(dim=-1, keepdim=True)
    values = torch.where(said, log_p.clamp(_LEAST, 0), 0.0)
    return {f"{name}/ids": ids.int(), f"{name}/values": half(values)}


def dense(name: str, sent: Tensors, classes: int) -> Tensor:
    """Log-probabilities (..., C) of what `sparse` made: what is left, evenly over all others.

    Values of a stranger may come to more than 1, or name a class twice: then the others have next
    to nothing, and the last value counts.

    Args:
        name: under which they were sent.
        sent: what holds `NAME/ids` and `NAME/values`, (..., k).
        classes: C > k.
    """
    ids, values = sent[f"{name}/ids"].long(), sent[f"{name}/values"].float()
    left = 1 - values.exp().sum(dim=-1, keepdim=True)
    others = left.clamp(min=math.exp(_LEAST / 2)).log() - math.log(classes - ids.shape[-1])
    whole = others.expand(*ids.shape[:-1], classes).scatter(-1, ids, values)
    return torch.where((values != 0).any(dim=-1, keepdim=True), whole, 0.0)
