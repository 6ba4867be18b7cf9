"""Points by their inner products, which say all that distances and directions do.

Of K points x_k around a middle m, `products` (..., K, K) holds (x_i - m) . (x_j - m), in float64. A
point m + sum_k a_k (x_k - m) is then its shares a (..., K), and however long points are, nobody has
to look at them again.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LEAST = 1e-300
"""Instead of 0 in a divisor, so that sums of its inverse are finite."""
_STEPS = 100
"""The most steps of Weiszfeld's algorithm."""
_TOLERANCE = 1e-7
"""How little a step moves, of how far points are apart, when it ends."""
_SMOOTH = 1e-6
"""The least distance that is divided by, of how far points are apart."""
_SQUARINGS = 16
"""Of products, so that what is left is the main direction: to the power of 65,536."""


def ordered(points: Tensor) -> list[Tensor]:
    """Rows (K, *S) sorted in each place by itself: K of (*S), the least first.

    By Batcher's network of comparisons of whole rows (1968, AFIPS 32), 20 times as fast as sorting
    millions of short columns.
    """
    rows, count = list(points.unbind()), len(points)
    for low, high in _comparisons(count):
        rows[low], rows[high] = (
            torch.minimum(rows[low], rows[high]),
            torch.maximum(rows[low], rows[high]),
        )
    return rows


def middle(rows: Sequence[Tensor]) -> Tensor:
    """The median of `ordered` rows: of an even number the mean of the two in the middle."""
    half = len(rows) // 2
    return rows[half] / 2 + rows[len(rows) - 1 - half] / 2


def distances(products: Tensor, shares: Tensor) -> Tensor:
    """How far each point is from the one with these shares (..., K): (..., K)."""
    along = (products @ shares[..., None])[..., 0]
    own = (shares * along).sum(dim=-1, keepdim=True)
    return (products.diagonal(dim1=-2, dim2=-1) - 2 * along + own).clamp(min=0).sqrt()


def squares(products: Tensor) -> Tensor:
    """Squared distances between points (K, K), exactly 0 of a point from itself."""
    own = products.diagonal()
    found = (own[:, None] + own - (products + products.T)).clamp(min=0)
    return found.fill_diagonal_(0.0)


def central(products: Tensor) -> Tensor:
    """The shares of the point with the least sum of distances: (..., K, K) -> (..., K), sum 1.

    Weiszfeld's algorithm, smoothed, from the middle on.
    """
    shares = products.new_zeros(products.shape[:-1])
    for _ in range(_STEPS):
        away = distances(products, shares)
        scale = away.median(dim=-1, keepdim=True).values
        weights = 1 / away.clamp(min=(_SMOOTH * scale).clamp(min=LEAST))
        before, shares = shares, weights / weights.sum(dim=-1, keepdim=True)
        step = shares - before
        moved = (step * (products @ step[..., None])[..., 0]).sum(dim=-1).clamp(min=0).sqrt()
        if bool((moved <= _TOLERANCE * scale[..., 0]).all()):
            break
    return shares


def filtered(products: Tensor, liars: int) -> Tensor:
    """Equal shares (n, K) of whom a filter leaves, 0 of the others; products are (n, K, K).

    It leaves out, `liars` times, who is farthest on the main direction of those that are left.
    """
    kept = products.new_ones(products.shape[:-1])
    for _ in range(liars):
        share = kept / kept.sum(dim=-1, keepdim=True)
        along = products @ share[..., None]
        around = products - along - along.mT + share[..., None, :] @ along
        around = around * kept[..., None] * kept[..., None, :]
        for _ in range(_SQUARINGS):
            size = around.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
            around = around / size.clamp(min=LEAST)
            around = around @ around
        # What is left is v v^T, v the places on the main direction.
        far = around.diagonal(dim1=-2, dim2=-1).masked_fill(kept == 0, -1.0).argmax(dim=-1)
        kept.scatter_(-1, far[..., None], 0.0)
    return kept / kept.sum(dim=-1, keepdim=True)


def _comparisons(count: int) -> list[tuple[int, int]]:
    """Which rows to compare, in turn, so that `count` of them end in order: odd-even mergesort."""
    found = []
    for size in (2**power for power in range(math.ceil(math.log2(max(2, count))))):
        step = size
        while step >= 1:
            for first in range(step % size, count - step, 2 * step):
                found += [
                    (low, low + step)
                    for low in range(first, min(first + step, count - step))
                    if low // (2 * size) == (low + step) // (2 * size)
                ]
            step //= 2
    return found
