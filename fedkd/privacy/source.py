"""Where all that protects somebody is drawn: noise, and which records a step takes.

Not from torch, whose generator on the CPU is a Mersenne Twister. That is linear over GF(2): who
knows a part of a release's noise, because the value under it is zero say, solves for the generator
and computes all the rest. Here bits come from AES-256 in counter mode, which nobody is known to
tell from fair coins without its key.

Nor are draws those of a formula in floating point, whose gaps tell what the noise was added to
(Mironov 2012). A draw is a real number rounded to an integer, and the integer is the right one:
float64 settles all draws but those within its error of the middle between two integers, and these
get more random bits and interval arithmetic.
"""

import math
import os
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

GENERATOR = "AES-256 in counter mode, keyed by the operating system"
"""What a `NoiseSource` is, for ledgers."""

MOST_SCALE = 2.0**40
"""The largest scale of a draw; beyond it float64 settles too few."""

_AT_ONCE = (
    2**12
)  # draws: their arrays stay in a core's cache, and torch splits none of them among threads
_BITS = 52  # of a uniform: with another half it is a float64, without rounding
_MORE = 128  # bits, for a draw that these do not settle

Words = np.ndarray[Any, np.dtype[np.uint64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]


class NoiseSource:
    """A stream of random bits under a fresh key from the operating system; for one thread.

    The one exception from `fedkd.rng`: noise that a seed repeats can be subtracted. It takes
    neither seed nor key, so that nobody can give it one. A process that was forked draws a key of
    its own, since two that went on with one would have the same noise.
    """

    def __init__(self) -> None:
        self._rekey()

    def _rekey(self) -> None:
        key = secrets.token_bytes(32)
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self._process = os.getpid()

    def words(self, count: int) -> Words:
        """Uniform numbers of 64 bits: (count,)."""
        if self._process != os.getpid():
            self._rekey()
        return np.frombuffer(self._encryptor.update(bytes(8 * count)), dtype="<u8")

    def gaussian(self, scales: Floats) -> Integers:
        """A draw of N(0, scale^2) for each scale, rounded to the nearest integer: (N,) -> (N,).

        Box & Muller 1958: two uniform numbers make two draws.

        Args:
            scales: standard deviations, in (0, 2^40].

        Raises:
            ValueError: a scale is out of its range.
        """
        return _in_parts(self._gaussian, scales)

    def laplace(self, scales: Floats) -> Integers:
        """As `gaussian`, draws of Laplace distributions."""
        return _in_parts(self._laplace, scales)

    def sample(self, rows: int, rate: float) -> Tensor:
        """A Poisson sample: the numbers of the rows that are taken, in ascending order, int64.

        Each is taken on its own, with the probability `rate` in (0, 1], or less by up to 2^-64.
        """
        if rate >= 1:
            return torch.arange(rows)
        taken = self.words(rows) < np.uint64(math.floor(rate * 2**64))
        return torch.from_numpy(np.flatnonzero(taken))

    def _gaussian(self, scales: Floats) -> Integers:
        half = (len(scales) + 1) // 2
        bits = self.words(2 * half) >> np.uint64(64 - _BITS)
        uniform, turn = _middles(bits).reshape(2, half)
        length, angle = np.sqrt(-2 * np.log(uniform)), 2 * np.pi * turn
        # The functions are right to four units in the last place, and an angle to as much of a
        # turn. What the unknown bits of the uniform number can do to the length follows from its
        # slope, 1 / (uniform length). Both bounds are doubled.
        error = length * 2.0**-47 + 2.0**-_BITS / (uniform * length)
        pairs = np.zeros((2, half))
        pairs.reshape(-1)[: len(scales)] = scales
        draws = pairs * length * _turned(angle)
        rounded, doubtful = _rounded(draws, pairs * error)
        for pair in np.flatnonzero(doubtful.any(axis=0)):
            rounded[:, pair] = self._pair(bits[pair], bits[half + pair], pairs[:, pair])
        return rounded.reshape(-1)[: len(scales)]

    def _laplace(self, scales: Floats) -> Integers:
        words = self.words(len(scales))
        bits, signed = (
            words >> np.uint64(64 - _BITS),
            np.where(words & np.uint64(1), scales, -scales),
        )
        uniform = _middles(bits)
        length = -np.log(uniform)
        error = length * 2.0**-47 + 2.0**-_BITS / uniform
        rounded, doubtful = _rounded(signed * length, scales * error)
        for index in np.flatnonzero(doubtful):
            rounded[index] = self._exponential(bits[index], signed[index])
        return rounded

    def _pair(self, uniform: np.uint64, turn: np.uint64, scales: Floats) -> list[int]:
        """The two Gaussian draws of a pair of numbers, from their first bits."""

        def draws(iv: Any, uniform: Any, turn: Any) -> list[Any]:
            length, angle = iv.sqrt(-2 * iv.log(uniform)), 2 * iv.pi * turn
            turned = (iv.cos(angle), iv.sin(angle))
            return [
                iv.mpf(float(scale)) * length * part
                for scale, part in zip(scales, turned, strict=True)
            ]

        return self._exactly(draws, [uniform, turn])

    def _exponential(self, uniform: np.uint64, scale: float) -> int:
        """The Laplace draw of a number and a scale with its sign, from its first bits."""

        def draws(iv: Any, uniform: Any) -> list[Any]:
            return [iv.mpf(float(scale)) * -iv.log(uniform)]

        return self._exactly(draws, [uniform])[0]

    def _exactly(self, draws: Callable[..., list[Any]], numbers: Sequence[np.uint64]) -> list[int]:
        """What `draws` makes of uniform numbers, rounded, with as many more bits as that takes.

        Args:
            draws: of interval arithmetic, and of an interval for each number.
            numbers: their first 52 bits.
        """
        from mpmath.ctx_iv import MPIntervalContext  # for few draws, and no start waits for it

        iv, bits, known = MPIntervalContext(), _BITS, [int(number) for number in numbers]
        while True:
            known = [number << _MORE | self._more() for number in known]
            bits += _MORE
            iv.prec = bits + _MORE
            within = [iv.mpf([number, number + 1]) / iv.mpf(2) ** bits for number in known]
            # Below the first of all numbers lies none, and its logarithm is infinite.
            found = [_whole(draw) for draw in draws(iv, *within)] if all(known) else [None]
            if None not in found:
                return [number for number in found if number is not None]

    def _more(self) -> int:
        return int.from_bytes(self.words(_MORE // 64).tobytes())


def _in_parts(draw: Callable[[Floats], Integers], scales: Floats) -> Integers:
    """Draw for some scales at a time."""
    if not ((scales > 0) & (scales <= MOST_SCALE)).all():
        wrong = scales[~((scales > 0) & (scales <= MOST_SCALE))][0]
        raise ValueError(f"Expected a scale={wrong} in (0, 2^40].")
    starts = range(0, len(scales), _AT_ONCE)
    parts = [draw(scales[start : start + _AT_ONCE]) for start in starts]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _middles(bits: Words) -> Floats:
    """The middle of what numbers in (0, 1) may be whose first 52 bits are known."""
    middles: Floats = (bits.astype(np.float64) + 0.5) * 2.0**-_BITS
    return middles


def _turned(angle: Floats) -> Floats:
    """Cosines and sines, (2, N): torch's are as right as numpy's, in a sixth of the time."""
    given = torch.from_numpy(angle)
    turned: Floats = torch.stack([given.cos(), given.sin()]).numpy()
    return turned


def _rounded(
    draws: Floats, errors: Floats
) -> tuple[Integers, "np.ndarray[Any, np.dtype[np.bool_]]"]:
    """Draws as whole numbers, and which of them may be the wrong ones."""
    nearest = np.rint(draws)
    doubtful = np.abs(draws - nearest) >= 0.5 - errors
    return nearest.astype(np.int64), doubtful


def _whole(draw: Any) -> int | None:
    """The whole number next to all of an interval; None where there are two."""
    low = math.floor(float(draw.mid))
    for number in (low, low + 1):
        if draw > number - 0.5 and draw < number + 0.5:
            return number
    return None
