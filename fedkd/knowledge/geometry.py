"""Lengths, directions and distances whose gradients stay finite where two points coincide."""

import torch
from torch import Tensor


def unit(x: Tensor, *, dim: int) -> Tensor:
    """Vectors along `dim` at length 1; a vector of length 0 stays 0 and passes its gradient on.

    An epsilon in the denominator instead would blow that gradient up by 1 / epsilon.
    """
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / torch.where(length > 0, length, 1.0)


def cosines(x: Tensor) -> Tensor:
    """Cosine between every two rows, features flattened: (N, ...) -> (N, N)."""
    rows = unit(x.flatten(1), dim=1)
    return rows @ rows.T


def distances(x: Tensor) -> Tensor:
    """Euclidean distance between every two rows, features flattened: (N, ...) -> (N, N).

    By differences, since |a|^2 + |b|^2 - 2ab loses the digits of near neighbours. A distance of 0
    has gradient 0.
    """
    rows = x.flatten(1)
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def by_mean(lengths: Tensor) -> Tensor:
    """Lengths, at least 0, in units of the mean of those above 0; all 0 if none is. Any shape."""
    mean = lengths.sum() / (lengths > 0).sum().clamp_min(1)
    return lengths / torch.where(mean > 0, mean, 1.0)
