"""Codes of a row in a few bits a number: a scale a row, a sign, or the likeliest class alone.

Each works on rows (R, C) in float32 and has a fixed size. A row of zeros says nothing, as at a
text's padding, and is a row of zeros again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedkd.exchange.codec import half
from fedkd.exchange.coding.packing import Symbols

Side = NDArray[np.float16]
"""Numbers beside the symbols, such as scales."""


@dataclass(frozen=True, slots=True)
class Code:
    """How rows (R, C) become whole numbers, and these the rows.

    A base (R, C) is what both sides have of the same rows; None: nothing. Reading takes whatever
    numbers a stranger sent, and may give NaN, which the door looks for.
    """

    bits: Callable[[int], int]
    """Of C: bits of a symbol."""
    symbols: Callable[[int, int], int]
    """Of (R, C): how many symbols."""
    side: Callable[[int, int], int]
    """Of (R, C): how many numbers beside them."""
    write: Callable[[Tensor, Tensor | None], tuple[Symbols, Side]]
    read: Callable[[Symbols, Side, Tensor | None, int], Tensor]
    """(symbols, side, base, C) -> rows."""


def beside(numbers: Tensor) -> Side:
    """Numbers as they cross the wire, flat."""
    return half(numbers).numpy().astype("<f2").ravel()


def back(side: Side) -> Tensor:
    """What `beside` made, in float32."""
    return torch.from_numpy(side.astype(np.float32))


def as_symbols(numbers: Tensor) -> Symbols:
    """Whole numbers from 0 to 65,535, flat."""
    return numbers.to(torch.int32).numpy().astype(np.uint16).ravel()


def as_numbers(symbols: Symbols, columns: int) -> Tensor:
    """Symbols as int64 rows of so many columns."""
    return torch.from_numpy(symbols.astype(np.int64)).reshape(-1, columns)


def _write_scaled(bits: int, x: Tensor, base: Tensor | None) -> tuple[Symbols, Side]:
    """Uniform steps between a row's least and its largest number, of the difference to a base."""
    residual = x if base is None else x - base
    top = 2**bits - 1
    low = half(residual.amin(dim=-1, keepdim=True)).float()
    step = half((residual.amax(dim=-1, keepdim=True) - low).clamp(min=0) / top).float()
    steps = torch.where(step > 0, (residual - low) / step, 0.0).round().clamp(0, top)
    return as_symbols(steps), beside(torch.cat([low, step], dim=-1))


def _read_scaled(symbols: Symbols, side: Side, base: Tensor | None, columns: int) -> Tensor:
    scales = back(side).reshape(-1, 2)
    found: Tensor = as_numbers(symbols, columns).float() * scales[:, 1:]
    found = found + scales[:, :1]
    return found if base is None else found + base


def _mean(x: Tensor, where: Tensor) -> Tensor:
    """The mean of some of the numbers; 0 of none."""
    return (x * where).double().sum() / where.sum().clamp(min=1)


def _write_sign(x: Tensor, base: Tensor | None) -> tuple[Symbols, Side]:
    """Whether a number is above its row's mean, and what both sides are on average."""
    above = x > x.mean(dim=-1, keepdim=True)
    below = ~above & (x != 0).any(dim=-1, keepdim=True)
    levels = torch.stack([_mean(x, below), _mean(x, above)])
    said = above if base is None else above ^ _above(base)
    return as_symbols(said), beside(levels)


def _read_sign(symbols: Symbols, side: Side, base: Tensor | None, columns: int) -> Tensor:
    above = as_numbers(symbols, columns) > 0
    above = above if base is None else above ^ _above(base)
    low, high = back(side)
    spoken = above.any(dim=-1, keepdim=True)
    return torch.where(above, high, low) * spoken


def _above(base: Tensor) -> Tensor:
    """Which numbers of a base, which has two levels, are the higher: exact on any machine."""
    return base > (base.amax(dim=-1, keepdim=True) + base.amin(dim=-1, keepdim=True)) / 2


def _write_likeliest(x: Tensor, base: Tensor | None) -> tuple[Symbols, Side]:
    """The likeliest class, C for none, and what it and the others are on average."""
    columns = x.shape[-1]
    first = _likeliest(x)
    top = torch.arange(columns) == first[:, None]
    others = ~top & (first != columns)[:, None]
    levels = torch.stack([_mean(x, others), _mean(x, top)])
    said = first if base is None else (first - _likeliest(base)) % (columns + 1)
    return as_symbols(said), beside(levels)


def _read_likeliest(symbols: Symbols, side: Side, base: Tensor | None, columns: int) -> Tensor:
    said = as_numbers(symbols, 1)[:, 0]
    first = said if base is None else (said + _likeliest(base)) % (columns + 1)
    low, high = back(side)
    top = torch.arange(columns) == first[:, None]
    return torch.where(top, high, low) * (first < columns)[:, None]


def _likeliest(x: Tensor) -> Tensor:
    """The class of each row, (R,), and C where it says nothing."""
    return torch.where((x != 0).any(dim=-1), x.argmax(dim=-1), x.shape[-1])


def _write_plain(x: Tensor, _base: Tensor | None) -> tuple[Symbols, Side]:
    return half(x).numpy().view(np.uint16).ravel(), np.zeros(0, np.float16)


def _read_plain(symbols: Symbols, _side: Side, _base: Tensor | None, columns: int) -> Tensor:
    return torch.from_numpy(symbols.view(np.float16).astype(np.float32)).reshape(-1, columns)


def _every(rows: int, columns: int) -> int:
    return rows * columns


def _scaled(bits: int) -> Code:
    write = partial(_write_scaled, bits)
    return Code(lambda _: bits, _every, lambda rows, _: 2 * rows, write, _read_scaled)


CODES = {
    "float16": Code(lambda _: 16, _every, lambda *_: 0, _write_plain, _read_plain),
    **{f"int{bits}": _scaled(bits) for bits in (8, 4, 3, 2)},
    "int1": Code(lambda _: 1, _every, lambda *_: 2, _write_sign, _read_sign),
    "top1": Code(
        lambda columns: columns.bit_length(),
        lambda rows, _: rows,
        lambda *_: 2,
        _write_likeliest,
        _read_likeliest,
    ),
}
"""By `exchange.answers`."""
