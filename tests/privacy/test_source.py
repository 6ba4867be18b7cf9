"""Noise that nobody can compute, and that is exactly what it is said to be."""

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import known_noise
import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from sources import seeded
from torch import nn

from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.knowledge import moments
from fedkd.learning.dp import sgd
from fedkd.privacy import mechanisms, source
from fedkd.privacy.source import NoiseSource
from fedkd.privacy.ziggurat import BITS, REACH, REGIONS, ZIGGURAT, Ziggurat

TWISTER = 19_937
"""The dimension of a Mersenne Twister over GF(2), so what its bits satisfy after twice as many."""
KNOWN, UNKNOWN = 40_960, 8_192
SIZE = 2**16


# The known-noise attack


def test_torch_s_noise_is_computed_from_a_part_of_it() -> None:
    """The attack on the first version: zeros under the noise of a release tell all of its noise."""
    noise = torch.randn(KNOWN + UNKNOWN, dtype=torch.float64, generator=filled())
    uniform = np.zeros(UNKNOWN)
    for bit in range(1, 9):
        known = known_noise.bits_of(noise[:KNOWN], bit)
        length, taps = known_noise.linear_complexity(known)
        assert length <= TWISTER
        uniform += np.array(known_noise.predicted(known, taps, UNKNOWN)) * 2.0**-bit
    found = known_noise.torch_normals(uniform + 2.0**-9)
    assert float((noise[KNOWN:] - found).std()) < 0.1
    assert float(noise[KNOWN:].std()) > 0.9


def filled() -> torch.Generator:
    """A generator of torch whose whole state comes from the operating system."""
    generator = torch.Generator()
    state = generator.get_state()
    state[24 : 24 + 8 * 624] = torch.from_numpy(
        np.frombuffer(os.urandom(4 * 624), dtype="<u4").astype("<u8")
    ).view(torch.uint8)
    return generator.set_state(state)


def released_zeros() -> torch.Tensor:
    return mechanisms.gaussian(
        torch.zeros(SIZE), sensitivity=1.0, noise_multiplier=1.0, source=NoiseSource()
    )


def sums_of_absent_classes() -> torch.Tensor:
    """Of `analytic`: the columns of classes that a client does not hold are noise alone."""
    nothing = moments.Moments(torch.zeros(1, 1).double(), torch.zeros(1, SIZE - 1).double())
    told = moments.protected(
        nothing, bound=1.0, balance=1.0, noise_multiplier=1.0, source=NoiseSource()
    )
    return torch.cat([told.features, told.labels], dim=1)[0]


def step_of_dead_units() -> torch.Tensor:
    """Of DP-SGD: what no record has a gradient for is noise alone."""
    model = nn.Linear(SIZE // 2, 2, bias=False)
    before = model.weight.detach().clone()
    sgd.train(
        model,
        Samples(torch.zeros(1, SIZE // 2), torch.zeros(1, dtype=torch.int64)),
        Optimisation(epochs=1, learning_rate=1.0, momentum=0.0),
        sgd.Noise(1.0, 1.0, 1.0, 1),
        loss=lambda logits, _: 0 * logits.sum(dim=1),
    )
    return (before - model.weight.detach()).flatten()


RELEASES = [released_zeros, sums_of_absent_classes, step_of_dead_units]


def complexity(release: Callable[[], torch.Tensor]) -> int:
    """Of the signs of its noise, each of which is a bit of a word."""
    signs = (release()[:KNOWN] < 0).long().tolist()
    return known_noise.linear_complexity(signs)[0]


@pytest.mark.parametrize("release", RELEASES)
def test_no_part_of_a_release_s_noise_tells_the_rest(release: Callable[[], torch.Tensor]) -> None:
    """The reader that solves a Mersenne Twister in the source's place finds nothing in the source.

    Fair coins have half their number, give or take a few: P[further off than k] < 2^(2 - 2k).
    """
    twister = np.random.MT19937(5)

    def words(_: NoiseSource, count: int) -> np.ndarray:
        halves = twister.random_raw(2 * count).astype(np.uint64)
        return halves[::2] << np.uint64(32) | halves[1::2]

    def kept(_: NoiseSource, words: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, ...]:
        """The few that are drawn anew have their signs from further words."""
        return np.sign(words.view(np.int64)) * scales, np.zeros(len(words), bool)

    with patch.object(NoiseSource, "words", words), patch.object(NoiseSource, "_outside", kept):
        assert complexity(release) <= TWISTER
    assert abs(complexity(release) - KNOWN / 2) < 40


def test_who_takes_part_in_a_step_is_fair_coins() -> None:
    taken = torch.zeros(KNOWN, dtype=torch.int64)
    taken[NoiseSource().sample(KNOWN, 0.5)] = 1
    assert abs(known_noise.linear_complexity(taken.tolist())[0] - KNOWN / 2) < 40


# Where the bits come from


def test_each_source_has_a_key_of_its_own_from_the_operating_system() -> None:
    drawn = []

    def token_bytes(count: int) -> bytes:
        drawn.append(os.urandom(count))
        return drawn[-1]

    with patch("secrets.token_bytes", token_bytes):
        streams = [NoiseSource().words(4).tobytes() for _ in range(3)]
    assert [len(key) for key in drawn] == [32, 32, 32]
    assert len(set(streams)) == 3


def test_the_words_are_those_of_aes_256_in_counter_mode() -> None:
    """NIST SP 800-38A, F.5.5, its key stream from a counter of zero: AES of 0, 1, 2 ..."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = bytes(range(32))
    with patch("secrets.token_bytes", return_value=key):
        drawn = source.NoiseSource()
    found = b"".join(drawn.words(count).tobytes() for count in (3, 3))  # ends within a block
    counters = b"".join(number.to_bytes(16, "big") for number in range(3))
    assert found == Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(counters)


def test_a_generator_of_torch_starts_from_any_state() -> None:
    """That of numpy's from the same words, and not one of the few that seeds lead to."""
    numpy = np.random.MT19937()
    words = seeded(4).words(624) & np.uint64(2**32 - 1)
    numpy.state = {**numpy.state, "state": {"key": words.astype(np.uint32), "pos": 624}}
    drawn = torch.randint(2**20, (2000,), generator=seeded(4).generator())
    assert drawn.tolist() == [number % 2**20 for number in numpy.random_raw(2000).tolist()]
    one, other = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7 + 2**32)
    assert torch.equal(torch.rand(4, generator=one), torch.rand(4, generator=other))


def test_no_seed_repeats_a_source() -> None:
    torch.manual_seed(0)
    one = NoiseSource().gaussian(np.full(8, 1e6))
    torch.manual_seed(0)
    assert (NoiseSource().gaussian(np.full(8, 1e6)) != one).any()


def test_a_forked_process_has_other_noise() -> None:
    drawn = NoiseSource()
    drawn.words(3)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, drawn.words(4).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 32) not in {drawn.words(4).tobytes(), bytes(32), b""}
    os.close(read), os.close(write)


# What is drawn


@pytest.mark.parametrize("scale", [0.7, 2.0**20, 2.0**33, 2.0**40])
def test_draws_inside_are_the_places_of_their_words_rounded(scale: float) -> None:
    words = seeded(3).words(400)
    found = seeded(3).gaussian(np.full(400, scale))
    inside = 0
    for word, number in zip(words.tolist(), found.tolist(), strict=True):
        region, place = word % REGIONS, word >> (63 - BITS)
        signed = place - 2 ** (BITS + 1) if place >> BITS else place
        if abs(signed) < ZIGGURAT.inside[region]:
            unit = mpmath.mpf(scale) * float(ZIGGURAT.widths[region]) / 2**BITS
            # A word says between which two numbers the draw lies.
            assert signed * unit - 0.5001 <= number <= (signed + 1) * unit + 0.5001
            inside += 1
    assert inside > 390


def everything_outside() -> Ziggurat:
    return dataclasses.replace(ZIGGURAT, inside=np.zeros(REGIONS))


def test_what_is_inside_is_kept_whatever_the_height() -> None:
    scales = 2.0 ** np.linspace(-3, 36, 4000)
    quick = seeded(5).gaussian(scales)
    with patch.object(source, "ZIGGURAT", everything_outside()):
        looked_at = seeded(5).gaussian(scales)
    different = quick != looked_at
    outside = 4000 - sum(
        abs(np.int64(word) >> 11) < ZIGGURAT.inside[word % REGIONS]
        for word in seeded(5).words(4000).view(np.int64).tolist()
    )
    assert different.sum() <= outside


def test_float64_settles_a_draw_as_interval_arithmetic_does() -> None:
    """Which points are under the density, too: all are looked at, by their own first bits."""
    scales = 2.0 ** np.linspace(-3, 30, 40)

    def drawn(**changed: Any) -> np.ndarray:
        inside = everything_outside()
        with patch.multiple(source, ZIGGURAT=inside, **changed):
            return seeded(5).gaussian(scales)

    quick, slow = drawn(), drawn(MARGIN=10.0)
    # What is drawn anew, or left open, has other bits here, since more was drawn before.
    assert (quick != slow).sum() <= 3
    assert (quick != 0).sum() > 30


def test_laplace_draws_are_those_of_their_bits_rounded() -> None:
    scales = 2.0 ** np.linspace(-3, 36, 400)
    words, found = seeded(5).words(400).tolist(), seeded(5).laplace(scales).tolist()
    for word, scale, number in zip(words, scales.tolist(), found, strict=True):
        ends = [-scale * mpmath.log(mpmath.mpf((word >> 12) + i) / 2**52) for i in (0.0001, 1)]
        assert min(ends) - 0.5001 <= abs(number) <= max(ends) + 0.5001
        assert number == 0 or (number > 0) is bool(word & 1)


def test_a_draw_in_the_middle_gets_more_bits_until_it_is_settled() -> None:
    class Coin(NoiseSource):
        """A word whose known bits say half of a box, and then others."""

        def words(self, count):
            self.asked = [*getattr(self, "asked", []), count]
            first = np.full(count, 2**62 + 500, dtype=np.uint64)
            return first if len(self.asked) == 1 else super().words(count)

    coin = Coin()
    half = float(ZIGGURAT.widths[500]) / 2
    draws = coin.gaussian(np.array([10_000.5 / half]))
    assert coin.asked == [1, 2]
    assert int(draws[0]) in (10_000, 10_001)


def test_draws_beyond_the_reach_are_those_of_the_tail() -> None:
    scale = 2.0**30
    draws, drawn = seeded(8), []
    while len(drawn) < 4000:
        drawn += [draws._tail(scale), -draws._tail(-scale)]

    def within(x: np.ndarray) -> np.ndarray:
        return 1 - stats.norm.sf(x) / stats.norm.sf(REACH)

    assert min(drawn) > REACH * scale
    assert stats.kstest(np.array(drawn) / scale, within).pvalue > 1e-6
    with patch.object(source, "_ERROR", 1.0):  # all are settled by intervals
        slow = seeded(8)
        assert next(slow._tail(scale) for _ in range(20)) == drawn[0]


def test_draws_are_normal() -> None:
    """In 4,096 parts that are equally likely, and beyond each of some lengths."""
    drawn = seeded(1).gaussian(np.broadcast_to(np.float64(2.0**32), 3_000_000)) / 2.0**32
    parts = np.bincount((stats.norm.cdf(drawn) * 4096).astype(int).clip(0, 4095), minlength=4096)
    assert stats.chisquare(parts).pvalue > 1e-6
    for length in (1.0, 2.0, 3.0, 3.9, REACH, 4.2, 4.5):
        found = int((np.abs(drawn) > length).sum())
        assert stats.binomtest(found, len(drawn), 2 * stats.norm.sf(length)).pvalue > 1e-6
    assert stats.kstest(drawn[:300_000], "norm").pvalue > 1e-6
    # Neither the next draw nor the size of the same tells a sign.
    signs = np.sign(drawn)
    for pair in ((signs[1:], signs[:-1]), (signs, np.abs(drawn)), (drawn[1:] ** 2, drawn[:-1])):
        assert abs(np.corrcoef(*pair)[0, 1]) < 6 / math.sqrt(len(drawn))


@pytest.mark.parametrize("scale", [0.4, 1.5])
@pytest.mark.parametrize(
    ("kind", "within"), [("gaussian", stats.norm.cdf), ("laplace", stats.laplace.cdf)]
)
def test_draws_have_the_chances_of_a_rounded_draw(kind: str, within, scale: float) -> None:
    most = math.ceil(3 * scale)
    found = getattr(seeded(), kind)(np.full(200_000, scale)).clip(-most, most)
    counts = np.bincount((found + most).astype(int))
    edges = np.arange(-most, most + 1) + 0.5
    chances = np.diff(within(edges[:-1] / scale), prepend=0, append=1)
    assert stats.chisquare(counts, chances * len(found)).pvalue > 1e-6


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, 2.0**41])
@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_a_scale_out_of_range_is_named(kind: str, bad: float) -> None:
    with pytest.raises(ValueError, match=rf"scale={bad} in \(0, 2\^40\]"):
        getattr(NoiseSource(), kind)(np.array([1.0, bad]))
    assert getattr(NoiseSource(), kind)(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("rate", [1.0, 0.25, 1e-3, 1e-30])
def test_a_sample_takes_each_row_by_its_rate(rate: float) -> None:
    rows = 100_000
    taken = seeded().sample(rows, rate)
    assert taken.dtype == torch.int64
    assert torch.equal(taken, taken.unique())
    assert ((taken >= 0) & (taken < rows)).all()
    chance = stats.binomtest(len(taken), rows, rate).pvalue
    assert chance > 1e-6
    assert len(NoiseSource().sample(0, rate)) == 0
