import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sources import seeded
from torch import Tensor

from fedkd.privacy import mechanisms
from fedkd.privacy.mechanisms import clip, clipped_sum
from fedkd.privacy.source import NoiseSource

NORMS = st.floats(1e-3, 1e3)
DTYPES = st.sampled_from([torch.float32, torch.float64])
SHAPES = st.lists(st.integers(0, 4), max_size=2).map(tuple)
ODD = st.sampled_from([0.0, 1e-30, -1e30, 3e38, math.nan, math.inf, -math.inf])


@st.composite
def batches(draw: st.DrawFn, parameters: int = 1) -> list[Tensor]:
    """(N, *shape) each: normal draws of any size, some entries odd, some rows zero."""
    count, dtype = draw(st.integers(0, 5)), draw(DTYPES)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    tensors = []
    for _ in range(parameters):
        shape = (count, *draw(SHAPES))
        tensor = torch.randn(shape, generator=generator, dtype=dtype)
        tensor *= draw(st.sampled_from([1e-3, 1.0, 1e3]))
        for value in draw(st.lists(ODD, max_size=2)) if tensor.numel() else []:
            tensor.view(-1)[draw(st.integers(0, tensor.numel() - 1))] = value
        for row in draw(st.sets(st.integers(0, count - 1), max_size=2)) if count else []:
            tensor[row] = 0
        tensors.append(tensor)
    return tensors


def by_hand(row: Tensor, norm: float) -> Tensor:
    """A row clipped by the definition, in float64."""
    if not row.isfinite().all():
        return torch.zeros_like(row, dtype=torch.float64)
    length = math.sqrt(math.fsum(value * value for value in row.double().flatten().tolist()))
    return row.double() * min(1, norm / length if length else 1)


def lengths(rows: Tensor) -> Tensor:
    return rows.double().reshape(len(rows), math.prod(rows.shape[1:])).norm(dim=1)


# Clipping


@settings(deadline=None)
@given(batches(), NORMS)
def test_clip_is_the_definition_row_by_row(batch: list[Tensor], norm: float) -> None:
    (rows,) = batch
    before = rows.clone()
    clipped = clip(rows, norm)
    assert clipped.shape == rows.shape
    assert clipped.dtype == rows.dtype
    assert (lengths(clipped) <= norm * (1 + 1e-6)).all()
    for row, found in zip(rows, clipped, strict=True):
        expected = by_hand(row, norm).to(rows.dtype)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-30)
    torch.testing.assert_close(rows, before, equal_nan=True)


def test_clip_leaves_a_short_row_and_zeroes_what_is_not_finite() -> None:
    rows = torch.tensor([[0.3, 0.4], [3.0, 4.0], [0.0, 0.0], [math.nan, 0.1], [math.inf, 0.1]])
    expected = torch.tensor([[0.3, 0.4], [0.6, 0.8], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(clip(rows, 1.0), expected)
    assert torch.equal(clip(rows, 0.6)[0], rows[0])
    torch.testing.assert_close(clipped_sum([rows], 1.0)[0], expected.sum(0))
    torch.testing.assert_close(clipped_sum([rows[:, :1], rows[:, 1]], 1.0)[0], torch.tensor([0.9]))


@pytest.mark.parametrize(
    ("dtype", "huge"), [(torch.float32, 3e38), (torch.float64, 1e308), (torch.float64, 1e200)]
)
@pytest.mark.parametrize("size", [3, 100_000])
def test_rows_whose_squares_overflow_keep_their_direction(
    dtype: torch.dtype, huge: float, size: int
) -> None:
    rows = torch.full((2, size), huge, dtype=dtype)
    expected = torch.full_like(rows, 1 / math.sqrt(size))
    torch.testing.assert_close(clip(rows, 1.0), expected)
    torch.testing.assert_close(clipped_sum([rows], 1.0)[0], 2 * expected[0])


def test_a_weight_too_small_for_its_type_keeps_all_its_digits() -> None:
    huge = torch.tensor([[3e38]])
    torch.testing.assert_close(
        clipped_sum([huge], 1e-3)[0], torch.tensor([1e-3]), rtol=1e-6, atol=0
    )


@settings(deadline=None)
@given(batches(parameters=3), NORMS)
def test_the_clipped_sum_is_the_definition_sample_by_sample(
    gradients: list[Tensor], norm: float
) -> None:
    sums = clipped_sum(gradients, norm)
    joint = torch.cat([each.reshape(len(each), math.prod(each.shape[1:])) for each in gradients], 1)
    rows = [by_hand(row, norm) for row in joint]
    expected = torch.stack(rows).sum(0) if rows else torch.zeros(joint.shape[1]).double()
    widths = [math.prod(each.shape[1:]) for each in gradients]
    for found, each, part in zip(sums, gradients, expected.split(widths), strict=True):
        assert found.shape == each.shape[1:]
        assert found.dtype == each.dtype
        torch.testing.assert_close(found.double().flatten(), part, rtol=1e-4, atol=1e-5 * norm)


@settings(deadline=None)
@given(batches(parameters=2), NORMS, st.data())
def test_one_sample_moves_the_sum_by_no_more_than_the_norm(
    gradients: list[Tensor], norm: float, data: st.DataObject
) -> None:
    gradients = [1000 * each.double() for each in gradients]
    count = len(gradients[0])
    if count == 0:
        return
    left_out = data.draw(st.integers(0, count - 1))
    rest = [each[torch.arange(count) != left_out] for each in gradients]
    pairs = zip(clipped_sum(gradients, norm), clipped_sum(rest, norm), strict=True)
    moved = math.sqrt(sum(float((one - other).square().sum()) for one, other in pairs))
    assert moved <= norm * (1 + 1e-5)


def test_outliers_move_the_sum_by_the_norm_jointly_over_parameters() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(8, *shape, generator=generator) for shape in ((50, 20), (50,), ())]
    calm = clipped_sum([each[1:] for each in gradients], 1.0)
    for each in gradients:
        each[0] *= 1000
    pairs = zip(clipped_sum(gradients, 1.0), calm, strict=True)
    moved = math.sqrt(sum(float((one - other).double().square().sum()) for one, other in pairs))
    assert moved == pytest.approx(1, rel=1e-5)


def test_a_million_equal_entries_are_clipped_as_exactly_as_ten() -> None:
    # torch's own float32 norm of them is short by 5e-4.
    (total,) = clipped_sum([torch.full((1, 1_000_000), 0.1)], 1.0)
    assert float(total.double().norm()) == pytest.approx(1, rel=1e-5)


def test_a_norm_far_below_the_squares_of_floats_still_holds() -> None:
    rows = torch.full((1, 4), 1e-25)
    for found in (clip(rows, 1e-25), clipped_sum([rows], 1e-25)[0][None]):
        assert float(lengths(found)) == pytest.approx(1e-25, rel=1e-5, abs=0)


def test_the_clipped_sum_of_no_parameters_is_none_and_of_no_samples_zero() -> None:
    assert clipped_sum([], 1.0) == []
    first, second = clipped_sum([torch.zeros(0, 2, 3), torch.zeros(0)], 1.0)
    assert torch.equal(first, torch.zeros(2, 3))
    assert torch.equal(second, torch.zeros(()))


def test_gradients_of_unlike_batches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one N, got \(2, 3\), \(1, 3\)"):
        clipped_sum([torch.zeros(2, 3), torch.zeros(1, 3)], 1.0)


@pytest.mark.parametrize(
    "rows", [torch.zeros(()), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3).half()]
)
def test_rows_of_another_kind_are_refused(rows: Tensor) -> None:
    with pytest.raises(ValueError, match="float32 or float64"):
        clip(rows, 1.0)
    with pytest.raises(ValueError, match="float32 or float64"):
        clipped_sum([rows], 1.0)


# Noise

ZEROS = torch.zeros(100_000)


Noise = Callable[..., Tensor]
NOISES = [mechanisms.gaussian, mechanisms.laplace]


@pytest.mark.parametrize(("noise", "spread"), [(mechanisms.gaussian, 1), (mechanisms.laplace, 2)])
def test_noise_has_the_spread_of_its_formula(noise: Noise, spread: float) -> None:
    value = torch.full_like(ZEROS, 5.0)
    noisy = noise(value, sensitivity=0.5, noise_multiplier=3.0, source=seeded())
    assert noisy.dtype == value.dtype
    assert float(noisy.std()) == pytest.approx(1.5 * math.sqrt(spread), rel=0.02)
    assert float(noisy.mean()) == pytest.approx(5, abs=0.03)


@pytest.mark.parametrize(
    ("noise", "within"),
    [(mechanisms.gaussian, math.erf), (mechanisms.laplace, lambda x: 1 - math.exp(-x))],
)
def test_noise_has_the_distribution_of_its_formula(
    noise: Noise, within: Callable[[float], float]
) -> None:
    draws = noise(ZEROS, sensitivity=1.0, noise_multiplier=1.0, source=seeded())
    assert float((draws > 0).double().mean()) == pytest.approx(0.5, abs=0.01)
    for bound in (0.2, 1.0, 2.5):
        x = bound / math.sqrt(2) if noise is mechanisms.gaussian else bound
        assert float((draws.abs() < bound).double().mean()) == pytest.approx(within(x), abs=0.01)


@pytest.mark.parametrize("noise", NOISES)
def test_noise_is_the_source_s_and_leaves_the_value_alone(noise: Noise) -> None:
    value = torch.arange(6).reshape(2, 3)
    draws = [
        noise(value, sensitivity=1.0, noise_multiplier=1.0, source=seeded(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert draws[0].dtype == torch.float64
    assert draws[0].shape == value.shape
    assert torch.equal(value, torch.arange(6).reshape(2, 3))
    empty = noise(torch.zeros(0, 3), sensitivity=1.0, noise_multiplier=1.0, source=seeded())
    assert empty.shape == (0, 3)


def test_votes_with_little_noise_are_the_majority() -> None:
    votes = torch.tensor([[9, 1, 0], [0, 3, 7], [2, 6, 2]])
    found = mechanisms.noisy_votes(votes, noise=1e-3, source=seeded())
    assert found.dtype == torch.int64
    assert found.tolist() == [0, 2, 1]
    assert mechanisms.noisy_votes(votes[:0], noise=1.0, source=seeded()).shape == (0,)


def test_votes_lose_as_often_as_the_noise_says() -> None:
    votes = torch.tensor([[12, 8]]).expand(100_000, 2)
    lost = mechanisms.noisy_votes(votes, noise=4.0, source=seeded()).double().mean()
    # P[N(0, 2 noise^2) > gap] = erfc(gap / (2 noise)) / 2
    assert float(lost) == pytest.approx(math.erfc(4 / (2 * 4.0)) / 2, rel=0.02)


@pytest.mark.parametrize("votes", [torch.zeros(3), torch.zeros(3, 0), torch.zeros(2, 3, 4)])
def test_votes_that_are_no_counts_per_query_are_refused(votes: Tensor) -> None:
    with pytest.raises(ValueError, match=r"shape \(N, C >= 1\)"):
        mechanisms.noisy_votes(votes, noise=1.0, source=seeded())


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_what_must_be_positive_is_named(bad: float) -> None:
    rows = torch.zeros(2, 3)
    for clipper in (lambda: clip(rows, bad), lambda: clipped_sum([rows], bad)):
        with pytest.raises(ValueError, match=f"finite norm={bad} > 0"):
            clipper()
    for noise in NOISES:
        with pytest.raises(ValueError, match=f"finite sensitivity={bad} > 0"):
            noise(rows, sensitivity=bad, noise_multiplier=1.0, source=seeded())
        with pytest.raises(ValueError, match=f"finite noise_multiplier={bad} > 0"):
            noise(rows, sensitivity=1.0, noise_multiplier=bad, source=seeded())
    with pytest.raises(ValueError, match=f"finite noise={bad} > 0"):
        mechanisms.noisy_votes(rows, noise=bad, source=seeded())


@pytest.mark.parametrize("noise", NOISES)
def test_a_scale_that_vanishes_or_overflows_is_refused(noise: Noise) -> None:
    for size, scale in ((1e-200, 0.0), (1e200, math.inf)):
        with pytest.raises(ValueError, match=f"finite scale={scale} > 0"):
            noise(ZEROS, sensitivity=size, noise_multiplier=size, source=seeded())


# The grid


class Recorder:
    """A source of no noise that notes how much was asked for."""

    def __init__(self) -> None:
        self.scales = np.zeros(0)

    def gaussian(self, scales: np.ndarray) -> np.ndarray:
        self.scales = scales
        return np.zeros(len(scales), np.int64)

    laplace = gaussian


@settings(deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 300),
    st.floats(1e-6, 1e6),
    st.floats(1e-2, 1e2),
    st.sampled_from(NOISES),
)
def test_rounding_to_the_grid_is_paid_for(
    seed: int, size: int, sensitivity: float, multiplier: float, noise: Noise
) -> None:
    draws = torch.Generator().manual_seed(seed)
    value = sensitivity * 100 * torch.randn(size, generator=draws, dtype=torch.float64)
    recorder = Recorder()
    told = noise(value, sensitivity=sensitivity, noise_multiplier=multiplier, source=recorder)
    moved = (told - value).abs().max()
    # The step is not told: it is a power of two of which all that is told is a multiple.
    step = 2.0 ** math.floor(math.log2(sensitivity * 2**-14 / size ** (norm_of(noise))))
    assert torch.equal(told, (told / step).round() * step)
    assert moved <= step / 2
    # Of two neighbours each number may be rounded towards or away from the other's.
    apart = sensitivity + step * size ** norm_of(noise)
    assert (recorder.scales * step >= multiplier * apart * (1 - 1e-12)).all()
    assert (recorder.scales * step <= multiplier * sensitivity * (1 + 2**-13)).all()
    assert apart <= sensitivity * (1 + 2**-14)


def norm_of(noise: Noise) -> float:
    """The power of N that a step in each of N numbers measures."""
    return 0.5 if noise is mechanisms.gaussian else 1.0


def test_heavier_numbers_get_less_noise_on_the_same_grid() -> None:
    recorder, weights = Recorder(), torch.tensor([1.0, 4.0, 0.5])
    mechanisms.gaussian(
        torch.zeros(3), sensitivity=1.0, noise_multiplier=2.0, source=recorder, weights=weights
    )
    torch.testing.assert_close(
        torch.from_numpy(recorder.scales / recorder.scales[0]), 1 / weights.double()
    )


def test_numbers_that_are_released_together_share_the_grid_of_all() -> None:
    together, apart = Recorder(), Recorder()
    how = {"sensitivity": 1.0, "noise_multiplier": 1.0}
    mechanisms.gaussian(torch.zeros(400), source=together, **how)
    mechanisms.gaussian(torch.zeros(100), source=apart, release=20.0, **how)
    assert together.scales[0] == apart.scales[0]


def test_no_step_is_finer_than_the_finest() -> None:
    how = {"sensitivity": 1.0, "noise_multiplier": 1e-12, "source": Recorder()}
    value = torch.tensor([0.3], dtype=torch.float64)
    assert float(mechanisms.gaussian(value, finest=0.25, **how)) == 0.25


@pytest.mark.parametrize("noise", NOISES)
def test_what_is_told_is_finite_and_tells_of_nan_by_nothing(noise: Noise) -> None:
    odd = torch.tensor([math.nan, math.inf, -math.inf, 1e300], dtype=torch.float64)
    told = noise(odd, sensitivity=1.0, noise_multiplier=1.0, source=seeded())
    assert told.isfinite().all()
    assert abs(float(told[0])) < 50
    assert float(told[1]) == pytest.approx(-float(told[2]), rel=1e-6)


def in_float64(value: Tensor, noise: Noise, scale: float) -> Tensor:
    """Noise as a formula has it: not rounded to anything."""
    draws = torch.Generator().manual_seed(0)
    if noise is mechanisms.gaussian:
        return value + scale * torch.randn(len(value), dtype=torch.float64, generator=draws)
    one, other = torch.rand(2, len(value), dtype=torch.float64, generator=draws)
    return value + scale * (torch.log1p(-one) - torch.log1p(-other))


def never_of_one(told: Tensor) -> Tensor:
    """Which outputs have bits that are lost where 1 is added to a smaller number."""
    scaled = told.double() * 2.0**53
    return scaled != scaled.floor()


@pytest.mark.parametrize("noise", NOISES)
def test_low_bits_tell_nothing_of_what_the_noise_is_on(noise: Noise) -> None:
    """Mironov 2012: what one neighbour alone can give tells it from the other, whatever epsilon."""
    zeros, ones = torch.zeros(200_000).double(), torch.ones(200_000).double()
    naive = [
        never_of_one(in_float64(value, noise, 10.0)).double().mean() for value in (zeros, ones)
    ]
    assert naive[0] > 0.005
    assert naive[1] == 0
    how = {"sensitivity": 1.0, "noise_multiplier": 10.0, "source": seeded(), "release": 1.0}
    for value in (zeros, ones):
        told = noise(value, **how)
        assert not never_of_one(told).any()
        # All residues come out of either value, each as often as any other.
        low = (told * 2**14).long() % 16
        counts = torch.bincount(low, minlength=16).double()
        assert stats.chisquare(counts.numpy()).pvalue > 1e-6


@pytest.mark.parametrize("noise", NOISES)
def test_a_zero_s_sign_tells_nothing_of_what_the_noise_is_on(noise: Noise) -> None:
    """A value just below 0 is -0.0 on the grid, and noise of -0.0 would keep it so."""
    how = {"sensitivity": 1.0, "noise_multiplier": 1e-6, "release": 64.0}
    above, below = (
        noise(torch.full((4000,), value), source=seeded(), **how) for value in (1e-9, -1e-9)
    )
    assert (above == 0).sum() > 100
    assert torch.equal(above, below)
    assert torch.equal(above.signbit(), below.signbit())


@pytest.mark.parametrize("numbers", [1, 2, 3, 10, 1000])
def test_noise_on_counts_is_drawn_up_to_its_bound(numbers: int) -> None:
    counts, most = torch.zeros(numbers), mechanisms.most_laplace(numbers)
    source = NoiseSource()
    told = mechanisms.laplace(counts, sensitivity=1.0, noise_multiplier=most, source=source)
    assert told.isfinite().all()
    with pytest.raises(ValueError, match="Expected a scale"):
        mechanisms.laplace(counts, sensitivity=1.0, noise_multiplier=8 * most, source=source)
