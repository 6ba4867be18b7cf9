"""Noise that nobody can compute, and that is exactly what it is said to be."""

import math
import os
from collections.abc import Callable, Iterator
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

TWISTER = 19_937
"""The dimension of a Mersenne Twister over GF(2), so what its bits satisfy after twice as many."""
KNOWN, UNKNOWN = 40_960, 8_192
HALF = 2**11
"""Of the draws that `NoiseSource` makes at a time."""
SIZE = 2**16


# The known-noise attack


def test_torch_s_noise_is_computed_from_a_part_of_it() -> None:
    """The attack on the first version: zeros under the noise of a release tell all of its noise."""
    noise = torch.randn(KNOWN + UNKNOWN, dtype=torch.float64, generator=filled())
    uniform = np.zeros(UNKNOWN)
    for bit in range(1, 9):
        known = known_noise.bits_of(noise[:KNOWN], half=known_noise.TORCH, bit=bit)
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
    told = mechanisms.gaussian(
        torch.zeros(SIZE), sensitivity=1.0, noise_multiplier=1.0, source=NoiseSource()
    )
    return told.double() / scale(1.0, SIZE)


def sums_of_absent_classes() -> torch.Tensor:
    """Of `analytic`: the columns of classes that a client does not hold are noise alone."""
    nothing = moments.Moments(torch.zeros(1, 1).double(), torch.zeros(1, SIZE - 1).double())
    told = moments.protected(
        nothing, bound=1.0, balance=1.0, noise_multiplier=1.0, source=NoiseSource()
    )
    return torch.cat([told.features, told.labels], dim=1)[0] / scale(math.sqrt(2), SIZE)


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
    return (before - model.weight.detach()).flatten().double() / scale(1 + 2**-10, SIZE)


def scale(sensitivity: float, size: int) -> float:
    """The noise's standard deviation, as everybody can compute it."""
    step = 2.0 ** math.floor(math.log2(sensitivity * 2**-14 / math.sqrt(size)))
    return sensitivity * (1 + 2**-16) + step * math.sqrt(size)


RELEASES = [released_zeros, sums_of_absent_classes, step_of_dead_units]


def complexity(release: Callable[[], torch.Tensor]) -> int:
    return known_noise.linear_complexity(known_noise.bits_of(release(), half=HALF)[:KNOWN])[0]


@pytest.mark.parametrize("release", RELEASES)
def test_no_part_of_a_release_s_noise_tells_the_rest(release: Callable[[], torch.Tensor]) -> None:
    """The reader that solves a Mersenne Twister in the source's place finds nothing in the source.

    Fair coins have half their number, give or take a few: P[further off than k] < 2^(2 - 2k).
    """
    twister = np.random.MT19937(5)

    def words(_: NoiseSource, count: int) -> np.ndarray:
        halves = twister.random_raw(2 * count).astype(np.uint64)
        return halves[::2] << np.uint64(32) | halves[1::2]

    with patch.object(NoiseSource, "words", words):
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


def test_no_seed_repeats_a_source() -> None:
    torch.manual_seed(0)
    one = NoiseSource().gaussian(np.full(8, 1e6))
    torch.manual_seed(0)
    assert (NoiseSource().gaussian(np.full(8, 1e6)) != one).any()


# What is drawn


def exactly(words: np.ndarray, scale: float) -> Iterator[tuple[mpmath.mpf, mpmath.mpf]]:
    """The least and the most that each Gaussian draw may be, by 60 digits, from the first 52 bits.

    Over the four corners of what the unknown bits may be, and a little more.
    """
    half = len(words) // 2
    with mpmath.workdps(60):
        unit = mpmath.mpf(2) ** -52
        for turned in (mpmath.cospi, mpmath.sinpi):
            for first, second in zip(words[:half], words[half:], strict=True):
                corners = [
                    scale
                    * mpmath.sqrt(-2 * mpmath.log((int(first >> 12) + i) * unit))
                    * turned(2 * (int(second >> 12) + j) * unit)
                    for i in (0.0001, 1)
                    for j in (0, 1)
                ]
                spread = max(corners) - min(corners)
                yield min(corners) - spread, max(corners) + spread


@pytest.mark.parametrize("scale", [0.7, 2.0**20, 2.0**33, 2.0**40])
def test_draws_are_the_normal_draws_of_their_bits_rounded(scale: float) -> None:
    words = seeded(3).words(400)
    found = seeded(3).gaussian(np.full(400, scale))
    for number, (low, high) in zip(found.tolist(), exactly(words, scale), strict=True):
        assert low - 0.5 <= number <= high + 0.5


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_float64_settles_a_draw_as_interval_arithmetic_does(kind: str) -> None:
    scales = 2.0 ** np.linspace(-3, 36, 600)
    quick = getattr(seeded(5), kind)(scales)

    def all_doubtful(draws, errors):
        nearest, _ = rounded(draws, errors)
        return 0 * nearest, errors >= 0

    rounded = source._rounded
    with patch.object(source, "_rounded", all_doubtful):
        slow = getattr(seeded(5), kind)(scales)
    # What float64 leaves open is drawn with other bits here, since more was drawn before.
    assert (quick != slow).sum() <= 3
    assert (quick != 0).sum() > 500


def test_a_draw_in_the_middle_gets_more_bits_until_it_is_settled() -> None:
    class Coin(NoiseSource):
        """Uniform numbers whose first bits say sqrt(2 ln 2) of a full turn, or next to it."""

        def words(self, count):
            self.asked = [*getattr(self, "asked", []), count]
            first = np.full(count, 2**63, dtype=np.uint64)  # one half, and no more than its 52 bits
            return first if len(self.asked) == 1 else super().words(count)

    coin = Coin()
    # A length of sqrt(2 ln 2) half a turn away: -1.1774 times the scale is 0.5 beside a whole one.
    scale = 10_000.5 / math.sqrt(2 * math.log(2))
    draws = coin.gaussian(np.array([scale]))
    assert len(coin.asked) > 1
    assert int(draws[0]) in (-10_001, -10_000)


@pytest.mark.parametrize("scale", [0.4, 1.5])
@pytest.mark.parametrize(
    ("kind", "within"), [("gaussian", stats.norm.cdf), ("laplace", stats.laplace.cdf)]
)
def test_draws_have_the_chances_of_a_rounded_draw(kind: str, within, scale: float) -> None:
    most = math.ceil(3 * scale)
    found = getattr(seeded(), kind)(np.full(200_000, scale)).clip(-most, most)
    counts = np.bincount(found + most)
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
