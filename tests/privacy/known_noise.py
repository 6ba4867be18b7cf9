"""What who knows a part of a noise makes of it: linear algebra over GF(2)."""

import numpy as np
import torch
from torch import Tensor

TORCH = 8


def bits_of(normals: Tensor, bit: int) -> list[int]:
    """A bit of each uniform number under torch's normal draws, which Box & Muller made of them.

    Args:
        normals: (N,); of 16 uniform numbers, j is the radius, or rather one less it, and j + 8 the
            angle of the draws j and j + 8.
        bit: 1 for the first bit behind the point.
    """
    first, second = np.moveaxis(normals.double().numpy().reshape(-1, 2, TORCH), 1, 0)
    radius = 1 - np.exp(-(first**2 + second**2) / 2)
    turn = (np.arctan2(second, first) / (2 * np.pi)) % 1.0
    uniform = np.stack([radius, turn], axis=1).reshape(-1)
    return (np.floor(uniform * 2.0**bit).astype(int) & 1).tolist()


def torch_normals(uniform: np.ndarray) -> Tensor:
    """torch's normal draws once more, from uniform numbers as `bits_of` reads them."""
    radius, turn = np.moveaxis(uniform.reshape(-1, 2, TORCH), 1, 0)
    length, angle = np.sqrt(-2 * np.log1p(-radius)), 2 * np.pi * turn
    draws = np.stack([length * np.cos(angle), length * np.sin(angle)], axis=1)
    return torch.from_numpy(draws.reshape(-1))


def linear_complexity(bits: list[int]) -> tuple[int, int]:
    """The shortest linear recurrence over GF(2) that makes a sequence: its length, its taps.

    Berlekamp & Massey 1969. Half of the rank of what the sequence can tell: a sequence of n fair
    coins has n / 2, a Mersenne Twister's never more than 19,937, however long. Bit i of the taps
    says whether the number i places back counts.
    """
    taps, other, length, since, past = 1, 1, 0, 1, 0
    for place, bit in enumerate(bits):
        past = past << 1 | bit  # bit i: the number i places back
        if (taps & past).bit_count() & 1:
            before = taps
            taps ^= other << since
            if 2 * length <= place:
                length, other, since = place + 1 - length, before, 0
        since += 1
    return length, taps


def predicted(bits: list[int], taps: int, count: int) -> list[int]:
    """The next numbers of a sequence by its recurrence."""
    past = 0
    for bit in bits:
        past = past << 1 | bit
    following = []
    for _ in range(count):
        following.append((taps >> 1 & past).bit_count() & 1)
        past = past << 1 | following[-1]
    return following
