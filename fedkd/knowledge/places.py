"""Which answers count: a loss per place, of logits (..., C) with one distribution at each place.

There is one place a record in classification, one a pixel in segmentation, one a token in tagging.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge.checks import has_shape, listed, same_shape


def counted(where: Tensor | None, **logits: Tensor) -> tuple[Tensor, ...]:
    """Logits with zeros at places that do not count, so that nothing comes from there, even NaN.

    Args:
        where: bool (...), which places count; None: all.
        logits: by name, each (..., C) with at least one axis before the classes.

    Raises:
        ValueError: naming shapes, where logits have no axis of places, are unlike each other, or
            `where` is not bool (...).
    """
    same_shape(**logits)
    first = next(iter(logits.values()))
    if first.dim() < 2:
        raise ValueError(f"expected (..., C), with classes last: found {listed(logits)}")
    if where is None:
        return tuple(logits.values())
    has_shape(tuple(first.shape[:-1]), where=where)
    if where.dtype != torch.bool:
        raise ValueError(f"where is {where.dtype}: expected bool, true at places that count")
    return tuple(torch.where(where[..., None], each, 0.0) for each in logits.values())


def spoken(logits: Tensor) -> Tensor:
    """At which places of logits (..., C) a model says something: bool (...).

    At padding its logits are all 0, and so are means of such.
    """
    return (logits != 0).any(dim=-1)


def zeroed(values: Tensor, where: Tensor | None) -> Tensor:
    """Values (...) with 0 at places that do not count."""
    return values if where is None else torch.where(where, values, 0.0)


def mean_of_counted(values: Tensor, where: Tensor) -> Tensor:
    """Values (N, ...), 0 where a place does not count, and `where` -> (N,), the mean of the others.

    A record of which no place counts gets 0.
    """
    places = where.flatten(1).sum(dim=1)
    return values.flatten(1).sum(dim=1) / places.clamp(min=1)


def log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Of logits (..., C), divided by T; of a class that is ruled out, -inf, the least number.

    So 0 log 0 is 0, and no gradient is NaN.
    """
    log_p = F.log_softmax(logits / temperature, dim=-1)
    return log_p.clamp_min(torch.finfo(log_p.dtype).min)


def target_column(student: Tensor, target: Tensor, where: Tensor | None) -> Tensor:
    """The true classes (...) of logits (..., C) as int64 (..., 1); 0 at places that do not count.

    Raises:
        ValueError: the shapes do not fit, or targets are not of integers.
    """
    has_shape(tuple(student.shape[:-1]), target=target)
    if target.is_floating_point():
        raise ValueError(f"target is {target.dtype}: expected integers, the true classes")
    if where is not None:  # what stands elsewhere, such as -100, is no class
        target = torch.where(where, target, 0)
    return target[..., None].long()
