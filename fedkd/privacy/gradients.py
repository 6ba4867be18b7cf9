"""Gradients of N samples by one parameter, in whatever form takes the least: what a clip needs."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Gradients(Protocol):
    """The gradient of each of N samples by one parameter p."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *shape_p)."""
        ...

    def lengths(self) -> Tensor:
        """The L2 norm of each, (N,) float64; not finite if its square is not."""
        ...

    def bounds(self) -> Tensor:
        """The length of what is added up to make each, (N,) float64; 0 where it is one number.

        Rounding is of this size, so one that is far above the length leaves few digits of it.
        """
        ...

    def rows(self, which: Tensor) -> Tensor:
        """Some of them as they are, (n, *shape_p), at an index or a mask."""
        ...

    def weighted(self, weights: Tensor, which: Tensor | None = None) -> Tensor:
        """The sum of weights (N,) times them, shape_p; at a mask: of those alone."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class Built:
    """Gradients as they are: (N, *shape_p), float32 or float64.

    Raises:
        ValueError: they have no first axis, or another type.
    """

    values: Tensor

    def __post_init__(self) -> None:
        _check(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Gradients`."""
        return tuple(self.values.shape)

    def lengths(self) -> Tensor:
        """See `Gradients`."""
        return lengths(flat(self.values))

    def bounds(self) -> Tensor:
        """Zeros: what is measured is what is summed, so no rounding comes in between."""
        return torch.zeros(len(self.values), dtype=torch.float64, device=self.values.device)

    def rows(self, which: Tensor) -> Tensor:
        """See `Gradients`."""
        return self.values[which]

    def weighted(self, weights: Tensor, which: Tensor | None = None) -> Tensor:
        """See `Gradients`."""
        values = flat(self.values)
        if which is not None:
            weights, values = weights[which], values[which]
        return (weights.to(values.dtype) @ values).reshape(self.values.shape[1:])


def flat(rows: Tensor) -> Tensor:
    """(N, ...) -> (N, D).

    Raises:
        ValueError: there is no first axis, or another type than float32 or float64.
    """
    _check(rows)
    return rows.reshape(len(rows), math.prod(rows.shape[1:]))


def lengths(flat: Tensor) -> Tensor:
    """(N, D) -> (N,): the L2 norm of each row, in float64; not finite if its square is not.

    A float32 norm over a million entries is short by 1e-3, which would let more than the norm pass;
    one over two thousand is right to 1e-6, and takes no copy in float64.
    """
    parts = [torch.linalg.vector_norm(part, dim=1) for part in torch.split(flat, 2048, dim=1)]
    found: Tensor = torch.linalg.vector_norm(torch.stack(parts).double(), dim=0)
    return found


def sizes(rows: Tensor) -> Tensor:
    """(..., D) -> (...): as `lengths`, of rows whose squares may vanish or overflow in float32.

    Such rows, shorter than 1e-12 or longer than 1e12, are squared in float64.
    """
    found = lengths(rows.reshape(-1, rows.shape[-1]))
    odd = ~((found > 1e-12) & (found < 1e12))
    if odd.any():
        few = rows.reshape(-1, rows.shape[-1])[odd]
        found[odd] = torch.linalg.vector_norm(few, dim=1, dtype=torch.float64)
    return found.reshape(rows.shape[:-1])


def _check(rows: Tensor) -> None:
    if rows.dim() == 0 or rows.dtype not in {torch.float32, torch.float64}:
        found = f"{tuple(rows.shape)} of {rows.dtype}"
        raise ValueError(f"Expected rows (N, ...) of float32 or float64, got {found}.")
