"""Low-rank updates: a matrix as the few singular vectors that hold most of its energy.

A weight of more than two dimensions counts as the matrix of its first axis against all others.
"""

import math

import torch
from torch import Tensor

LARGEST = 1e4
"""The most that an entry of the factors may be, so that their products stay finite."""


def most_rank(shape: tuple[int, ...]) -> int:
    """The highest rank whose factors are smaller than a weight of this shape; 0 if none is."""
    if len(shape) < 2:
        return 0
    rows, columns = _sides(shape)
    return (rows * columns - 1) // (rows + columns)


def factor_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """The shape of `factorise` at the highest rank."""
    return most_rank(shape), sum(_sides(shape))


def factorise(weight: Tensor, *, energy: float) -> Tensor:
    """The leading singular triples that together hold a share of the energy, one a row.

    The energy of a matrix is the sum of its squared singular values. Wu et al. 2022, FedKD,
    arXiv:2108.13323, keep the fewest values that hold the share; here at most `most_rank`, beyond
    which the factors would be larger than the matrix.

    Args:
        weight: (P, ...), counted as (P, Q).
        energy: the share, in (0, 1].

    Returns:
        (k, P + Q): row i is sqrt(s_i) u_i beside sqrt(s_i) v_i; no row for a weight of zeros.

    Raises:
        ValueError: the share is not in (0, 1].
    """
    if not 0 < energy <= 1:
        raise ValueError(f"expected energy={energy} in (0, 1]")
    # In double precision, so that the last bits of single precision do not turn on the share.
    u, s, vh = torch.linalg.svd(weight.double().flatten(1), full_matrices=False)
    held = s.square().cumsum(0)
    needed = int((held < energy * held[-1]).sum()) + 1 if held[-1] > 0 else 0
    rank = min(needed, most_rank(tuple(weight.shape)))
    scaled: Tensor = s[:rank].sqrt()[:, None] * torch.cat([u.T[:rank], vh[:rank]], dim=1)
    return scaled.to(weight.dtype)


def multiply(factors: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The weight of this shape that factors (k, P + Q) stand for."""
    rows, _ = _sides(shape)
    return (factors[:, :rows].T @ factors[:, rows:]).reshape(shape)


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])
