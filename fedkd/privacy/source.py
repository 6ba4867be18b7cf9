"""Where all that protects somebody is drawn: noise, and which records a step takes.

Not from torch, whose generator on the CPU is a Mersenne Twister. That is linear over GF(2): who
knows a part of a release's noise, because the value under it is zero say, solves for the generator
and computes all the rest. Here bits come from AES-256 in counter mode, which nobody is known to
tell from fair coins without its key.

Nor are draws those of a formula in floating point, whose gaps tell what the noise was added to
(Mironov 2012). A draw is a real number rounded to an integer, and the integer is the right one:
float64 settles all draws but those within its error of the middle between two integers, or of the
edge of a region, and these get more random bits and interval arithmetic.
"""

import math
import os
import secrets
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

from fedkd.privacy.settling import below, settle, whole
from fedkd.privacy.ziggurat import (
    BITS,
    MARGIN,
    REACH,
    REGIONS,
    ZIGGURAT,
    Floats,
    floor_and_height,
    width,
)

GENERATOR = "AES-256 in counter mode, keyed by the operating system"
"""What a `NoiseSource` is, for ledgers."""

MOST_SCALE = 2.0**40
"""The largest scale of a draw; beyond it float64 settles too few."""

_TWISTER, _HEAD = 624, 24
"""How many numbers of 32 bits a generator of torch is in, each in 8 bytes, and behind how many."""
_AT_ONCE = 2**13
"""Draws whose arrays stay in a core's cache."""
_ERROR = 2.0**-47
"""What a draw within the ziggurat may be off by, as a share of its scale: 2^-52 of a width below 5
is unknown, and float64 rounds a width, two products and a scale. Doubled, and more."""

Words = np.ndarray[Any, np.dtype[np.uint64]]
Places = np.ndarray[Any, np.dtype[np.int64]]


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

    def generator(self) -> torch.Generator:
        """A generator of torch for what must be secret, and shows in no release as it is.

        Its whole state is drawn. torch cuts a seed to 32 bits, which can be tried out one by one.
        """
        generator = torch.Generator()
        state = generator.get_state()
        drawn = self.words(_TWISTER) & np.uint64(2**32 - 1)
        state[_HEAD : _HEAD + drawn.nbytes] = torch.from_numpy(drawn).view(torch.uint8)
        return generator.set_state(state)

    def gaussian(self, scales: Floats) -> Floats:
        """A draw of N(0, scale^2) for each scale, rounded to the nearest integer: (N,) -> (N,).

        See `ziggurat`: a word is a region and a place across it with its sign. Where any point of
        the region is under the density the place is the draw, which leaves one in 240; the others
        get a height. All numbers are real ones of which some bits are known, and whatever these do
        not settle beyond the error of float64 gets more of them: so a draw is the rounded value of
        an exactly normal one.

        Args:
            scales: standard deviations, in (0, 2^40].

        Returns:
            Whole numbers, as float64.

        Raises:
            ValueError: a scale is out of its range.
        """
        _check(scales)
        drawn = np.empty(len(scales))
        left: list[tuple[Places, Words]] = [(np.zeros(0, np.int64), np.zeros(0, np.uint64))]
        for start in range(0, len(scales), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            places, words = self._inside(scales[part], drawn[part])
            left.append((places + start, words))
        places, words = (np.concatenate(each) for each in zip(*left, strict=True))
        if len(places):
            drawn[places], rejected = self._outside(words, scales[places])
            again = places[rejected]
            drawn[again] = self.gaussian(scales[again])
        return drawn

    def laplace(self, scales: Floats) -> Floats:
        """As `gaussian`, draws of Laplace distributions."""
        _check(scales)
        starts = range(0, len(scales), _AT_ONCE)
        parts = [self._laplace(scales[start : start + _AT_ONCE]) for start in starts]
        return np.concatenate([np.zeros(0), *parts])

    def sample(self, rows: int, rate: float) -> Tensor:
        """A Poisson sample: the numbers of the rows that are taken, in ascending order, int64.

        Each is taken on its own, with the probability `rate` in (0, 1], or less by up to 2^-64.
        """
        if rate >= 1:
            return torch.arange(rows)
        taken = self.words(rows) < np.uint64(math.floor(rate * 2**64))
        return torch.from_numpy(np.flatnonzero(taken))

    def _inside(self, scales: Floats, drawn: Floats) -> tuple[Places, Words]:
        """Fill in what draws are if they are inside; where they may not be, and their words."""
        words = self.words(len(scales))
        signed = words.view(np.int64)
        regions = signed & (REGIONS - 1)
        across = (signed >> (63 - BITS)).astype(np.float64)
        outside = np.flatnonzero(np.abs(across) >= ZIGGURAT.inside.take(regions))
        across *= ZIGGURAT.units.take(regions)
        across *= scales
        for index in _round(across, scales, drawn):
            drawn[index] = self._rounded(words[index], scales[index])
        return outside, words[outside]

    def _outside(
        self, words: Words, scales: Floats
    ) -> "tuple[Floats, np.ndarray[Any, np.dtype[np.bool_]]]":
        """Draws of words that may not be inside, and which of them are to be drawn anew."""
        regions, signed = words & np.uint64(REGIONS - 1), words.view(np.int64) >> (63 - BITS)
        regions = regions.astype(np.int64)
        heights = self.words(len(words)) >> np.uint64(64 - BITS)
        across = signed * ZIGGURAT.units[regions]
        floors, boxes = ZIGGURAT.floors[regions], ZIGGURAT.heights[regions]
        above = floors + _middles(heights) * boxes - np.exp(-(across**2) / 2)
        above = np.where(regions == 0, np.abs(across) - REACH, above)
        drawn = np.empty(len(words))
        for index in _round(across * scales, scales, drawn):
            drawn[index] = self._rounded(words[index], scales[index])
        for index in np.flatnonzero((regions == 0) & (above >= MARGIN)):
            drawn[index] = self._tail(math.copysign(scales[index], signed[index]))
        for index in np.flatnonzero(np.abs(above) < MARGIN):
            drawn[index] = self._doubtful(words[index], heights[index], scales[index])
            above[index] = 1.0 if math.isnan(drawn[index]) else -1.0
        return drawn, (above > 0) & (regions > 0)

    def _laplace(self, scales: Floats) -> Floats:
        words = self.words(len(scales))
        bits = words >> np.uint64(64 - BITS)
        signed = np.where(words & np.uint64(1), scales, -scales)
        uniform = _middles(bits)
        length = -np.log(uniform)
        errors = scales * (length * 2.0**-47 + 2.0**-BITS / uniform)
        drawn: Floats = np.rint(signed * length)
        for index in np.flatnonzero(np.abs(signed * length - drawn) >= 0.5 - errors):
            drawn[index] = self._exponential(bits[index], signed[index])
        return drawn

    def _tail(self, scale: float) -> float:
        """A draw beyond `REACH`, by a scale with its sign: Marsaglia 1964.

        An exponential draw a by the rate r is kept with the chance exp(-a^2 / 2), which is that of
        an exponential draw b to be above a^2 / 2; so r + a has a density that falls as f does.
        """

        def decide(iv: Any, first: Any, second: Any) -> float | None:
            beyond, other = -iv.log(first) / REACH, -iv.log(second)
            return whole(iv.mpf(scale) * (REACH + beyond), where=below(beyond**2, 2 * other))

        while True:
            bits = self.words(2) >> np.uint64(64 - BITS)
            uniform = _middles(bits).tolist()
            beyond, other = -math.log(uniform[0]) / REACH, -math.log(uniform[1])
            errors = [beyond * 2.0**-47 + 2.0**-BITS / uniform[0], 2.0**-BITS / uniform[1]]
            bound = 4 * (beyond * errors[0] + errors[1]) + other * 2.0**-46
            if beyond**2 - 2 * other > bound:
                continue
            draw, error = scale * (REACH + beyond), abs(scale) * (errors[0] + _ERROR)
            drawn = float(round(draw))
            if beyond**2 - 2 * other > -bound or abs(draw - drawn) >= 0.5 - error:
                drawn = settle(decide, bits, self.words)
            if not math.isnan(drawn):
                return drawn

    def _rounded(self, word: np.uint64, scale: float) -> float:
        """The draw of a word that is under the density, whatever its further bits."""
        region, place, sign = _parts(word)

        def decide(iv: Any, across: Any) -> float | None:
            return whole(iv.mpf(sign * float(scale)) * width(iv, region) * across)

        return settle(decide, [place], self.words)

    def _doubtful(self, word: np.uint64, height: np.uint64, scale: float) -> float:
        """The draw of a word and a height that may be under the density; NaN if they are not."""
        region, place, sign = _parts(word)

        def decide(iv: Any, across: Any, height: Any) -> float | None:
            x = width(iv, region) * across
            if region == 0:
                under = below(x, REACH)
            else:
                floor, box = floor_and_height(iv, region)
                under = below(floor + height * box, iv.exp(-(x**2) / 2))
            return whole(iv.mpf(sign * float(scale)) * x, where=under)

        drawn = settle(decide, [place, int(height)], self.words)
        return self._tail(sign * scale) if math.isnan(drawn) and region == 0 else drawn

    def _exponential(self, uniform: np.uint64, scale: float) -> float:
        """The Laplace draw of a number and a scale with its sign, from its first bits."""

        def decide(iv: Any, uniform: Any) -> float | None:
            return whole(iv.mpf(float(scale)) * -iv.log(uniform))

        return settle(decide, [int(uniform)], self.words)


def _check(scales: Floats) -> None:
    if len(scales) and not (_distinct(scales).min() > 0 and _distinct(scales).max() <= MOST_SCALE):
        wrong = scales[~((scales > 0) & (scales <= MOST_SCALE))][0]
        raise ValueError(f"Expected a scale={wrong} in (0, 2^40].")


def _distinct(scales: Floats) -> Floats:
    """Of one number that stands for all, that number."""
    return scales if any(scales.strides) else scales[:1]


def _middles(bits: Words) -> Floats:
    """The middle of what numbers in (0, 1) may be whose first 52 bits are known."""
    middles: Floats = (bits.astype(np.float64) + 0.5) * 2.0**-BITS
    return middles


def _parts(word: np.uint64) -> tuple[int, int, int]:
    """A word's region, the first bits of how far across it, and the sign."""
    signed = int(word.view(np.int64)) >> (63 - BITS)
    return int(word) % REGIONS, max(signed, ~signed), 1 if signed >= 0 else -1


def _round(draws: Floats, scales: Floats, drawn: Floats) -> Places:
    """Fill in draws as whole numbers; which of them may be the wrong ones. Uses `draws` up."""
    np.rint(draws, out=drawn)
    np.subtract(draws, drawn, out=draws)
    np.abs(draws, out=draws)
    if draws.max() < 0.5 - _ERROR * _distinct(scales).max():
        return np.zeros(0, np.int64)
    return np.flatnonzero(draws >= 0.5 - _ERROR * scales)
