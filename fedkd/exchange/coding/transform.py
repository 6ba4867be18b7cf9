"""Transform coding: answers along their own principal directions, in steps of one size.

The Karhunen-Loeve transform with uniform steps, entropy coded, is the textbook's code for numbers
that go together (Goyal 2001, IEEE Signal Processing Magazine 18(5)). Classes that a client never
saw go together; so most directions say less than a step and cost next to nothing. One step for all
clients is what costs the mean of their answers least: who speaks softly needs fewer bits.
"""

import numpy as np
import torch
from torch import Tensor

from fedkd.exchange.codec import half
from fedkd.exchange.coding.packing import Symbols
from fedkd.exchange.coding.rows import Code, Side, as_numbers, as_symbols, back, beside
from fedkd.threads import one_intra_op_thread

MOST_COLUMNS = 256
"""Classes whose directions are sent; more would take longer than they save."""
_FURTHEST = 2**15 - 1
"""Steps that a number may be away, either way."""


def transform(step: float) -> Code:
    """The code of rows in steps of this size."""

    def write(x: Tensor, base: Tensor | None) -> tuple[Symbols, Side]:
        return _write(x, base, step)

    def read(symbols: Symbols, side: Side, base: Tensor | None, columns: int) -> Tensor:
        return _read(symbols, side, base, columns, step)

    return Code(
        bits=lambda _: 16,
        symbols=lambda rows, columns: rows * (columns + 1),
        side=lambda _, columns: 1 + columns + columns * columns,
        write=write,
        read=read,
    )


def _write(x: Tensor, base: Tensor | None, step: float) -> tuple[Symbols, Side]:
    """Steps by direction, then which rows say nothing; the share of the base, mean, directions."""
    silent = (x == 0).all(dim=-1)
    with one_intra_op_thread():
        share = _share(x, base)
        residual = x if base is None else x - share * base
        residual = residual.masked_fill(silent[:, None], 0.0)
        mean = half(residual.sum(dim=0) / max(1, int((~silent).sum()))).float()
        centred = (residual - mean).masked_fill(silent[:, None], 0.0)
        own = centred.double()
        directions = torch.linalg.eigh(own.T @ own).eigenvectors.flip(-1).T
        directions = half(directions).float()
        found = (centred @ directions.T / step).round().clamp(-_FURTHEST, _FURTHEST).long()
    unused = ~found.any(dim=0)  # a direction that nothing lies along is not worth its numbers
    directions[unused] = 0.0
    zigzag = torch.where(found >= 0, 2 * found, -2 * found - 1)
    symbols = torch.cat([zigzag.T.reshape(-1), silent.long()])
    return as_symbols(symbols), beside(torch.cat([share[None], mean, directions.reshape(-1)]))


def _share(x: Tensor, base: Tensor | None) -> Tensor:
    """How much of the base the rows have, by least squares: what they changed is what is left."""
    if base is None or not bool(base.any()):
        return torch.tensor(0.0)
    a, b = x.double(), base.double()
    return half(((a * b).sum() / (b * b).sum()).clamp(0, 1).float()).float()


def _read(symbols: Symbols, side: Side, base: Tensor | None, columns: int, step: float) -> Tensor:
    """Number by number in one order, so that any machine finds the same bits."""
    numbers = back(side)
    share, mean = numbers[0], numbers[1 : 1 + columns]
    directions = numbers[1 + columns :].reshape(columns, columns)
    rows = len(symbols) // (columns + 1)
    zigzag = as_numbers(symbols[: rows * columns], rows)
    silent = torch.from_numpy(symbols[rows * columns :] != np.uint16(0))
    along = torch.where(zigzag % 2 == 0, zigzag // 2, -(zigzag + 1) // 2).float() * step
    found = mean.expand(rows, columns)
    for steps, direction in zip(along, directions, strict=True):
        part = steps[:, None] * direction
        found = found + part
    if base is not None:
        kept = share * base
        found = found + kept
    return found.masked_fill(silent[:, None], 0.0)
