"""Batches of texts of like length: what is padding costs nothing where all of a batch is short."""

import torch
from torch import Tensor

_BATCHES = 50
"""So many batches are sorted at a time: enough for like lengths, few enough to stay shuffled."""


def by_length(x: Tensor, order: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """An order of records in which those of a batch are of like length.

    Shuffled records are sorted by length within `_BATCHES` batches at a time; whole batches are
    shuffled then, and the last, which may be smaller, stays the last.

    Args:
        x: token numbers (N, L), or of pairs (N, 2, L), of which the end may be padding: a number
            that repeats.
        order: int64 (N,), shuffled.
        size: of a batch.
        generator: shuffles batches.
    """
    lengths = _lengths(x)
    sorted_ = torch.cat(
        [part[lengths[part].argsort(stable=True)] for part in torch.split(order, _BATCHES * size)]
    )
    full = len(order) // size * size
    batches = sorted_[:full].view(-1, size)
    shuffled = batches[torch.randperm(len(batches), generator=generator)]
    return torch.cat([shuffled.flatten(), sorted_[full:]])


def _lengths(x: Tensor) -> Tensor:
    """How many tokens stand before the number that a record ends with repeats: int64 (N,)."""
    differs = x != x[..., -1:]
    places = torch.arange(1, x.shape[-1] + 1)
    return (differs * places).flatten(1).amax(dim=1)
