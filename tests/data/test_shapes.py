"""Images made up of shapes: what they are, and that a generator alone decides them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fedkd.data.shapes import blended, made_up, moved, shapes, smooth

Draw = Callable[[int, tuple[int, ...], torch.Generator], Tensor]
GREY, COLOUR = (1, 28, 28), (3, 17, 20)
each_shape = pytest.mark.parametrize("shape", [GREY, COLOUR])
each_draw = pytest.mark.parametrize("draw", [made_up, shapes])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@each_shape
@each_draw
@pytest.mark.parametrize("count", [1, 2, 7, 31])
def test_as_many_images_as_asked_for_in_range(
    draw: Draw, shape: tuple[int, ...], count: int
) -> None:
    found = draw(count, shape, generator(count))
    assert found.shape == (count, *shape)
    assert found.dtype == torch.float32
    assert 0 <= float(found.min()) < float(found.max()) <= 1


@each_shape
@each_draw
def test_a_generator_alone_decides_them_and_no_other_is_touched(
    draw: Draw, shape: tuple[int, ...]
) -> None:
    before = torch.get_rng_state()
    first, again, other = (draw(12, shape, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not any(torch.equal(one, two) for one, two in zip(first, other, strict=True))
    assert len({one.numpy().tobytes() for one in first}) == 12


def test_more_than_fit_into_memory_at_once_are_no_copies() -> None:
    found = shapes(1100, (1, 6, 6), generator())
    assert len(found) == 1100
    assert not torch.equal(found[:100], found[1000:])


def common(one: Tensor, other: Tensor) -> float:
    """How much of what either draws both do, over images (N, H, W), where both draw anything."""
    both, either = ((one > 0) & (other > 0)).sum(), ((one > 0) | (other > 0)).sum()
    return float(both / either)


def test_colour_channels_have_outlines_in_common_and_fillings_of_their_own() -> None:
    found = shapes(200, COLOUR, generator(3))
    red, green = found[:, 0], found[:, 1]
    assert common(red, green) > common(red, green.roll(1, dims=0)) + 0.2
    assert not any(torch.equal(one, two) for one, two in zip(red, green, strict=True))


def test_images_are_varied() -> None:
    found = shapes(400, GREY, generator(4))
    share = (found > 0).double().flatten(1).mean(dim=1)
    assert share.min() < 0.2
    assert share.max() > 0.9
    assert share.std() > 0.1
    drawn = found.mean(dim=(0, 1))  # more in the middle than in the corners, on no side more
    assert drawn[10:18, 10:18].mean() > 1.5 * drawn[:4, :4].mean()
    assert float(drawn[:14].mean() / drawn[14:].mean()) == pytest.approx(1, abs=0.15)
    assert float(drawn[:, :14].mean() / drawn[:, 14:].mean()) == pytest.approx(1, abs=0.15)


def test_many_outlines_are_their_own_mirror_images_and_many_are_not() -> None:
    drawn = shapes(600, GREY, generator(10))[:, 0] > 0
    drawn = drawn[drawn.double().mean(dim=(1, 2)) < 0.8]
    mirror = drawn.flip(2)
    common = (drawn & mirror).sum(dim=(1, 2)) / (drawn | mirror).sum(dim=(1, 2))
    # Three in five are drawn so; grain takes dark pixels out of some.
    assert float((common > 0.9).double().mean()) == pytest.approx(0.5, abs=0.12)


def test_a_blend_is_of_the_image_and_one_other() -> None:
    unit = torch.eye(50).view(50, 1, 1, 50)
    share = blended(unit, generator(5)).view(50, 50)
    assert float(share.min()) >= 0
    torch.testing.assert_close(share.sum(dim=1), torch.ones(50))
    assert int((share > 0).sum(dim=1).max()) == 2
    own = share.diagonal()
    assert bool((own > 0).all())
    assert float(own.mean()) == pytest.approx(0.5, abs=0.12)
    assert float(own.std()) == pytest.approx(12**-0.5, abs=0.08)
    partners = (share - torch.diag(own)).argmax(dim=1)
    assert len(partners.unique()) > 45  # a permutation, but for whoever met itself


@each_shape
def test_what_moved_keeps_its_shape_and_range_and_most_of_its_ink(shape: tuple[int, ...]) -> None:
    _, height, width = shape
    x = torch.zeros(200, *shape)
    x[:, :, height // 2 - 3 : height // 2 + 3, width // 2 - 3 : width // 2 + 3] = 1
    found = moved(x, generator(6))
    assert found.shape == x.shape
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    ink = found.sum(dim=(1, 2, 3)) / x[0].sum()
    assert 0.7 < float(ink.min()) < 0.9 < 1.1 < float(ink.max()) < 1.5
    rows = (torch.arange(height) + 0.5) / height * 2 - 1
    level = (found.sum(dim=(1, 3)) * rows).sum(dim=1) / found.sum(dim=(1, 2, 3))
    assert 0.05 < float((level - level.mean()).abs().max()) < 0.2


def test_half_are_mirrored_and_none_is_upside_down() -> None:
    x = torch.zeros(400, *GREY)
    x[:, :, 4:8, 5:9] = 1  # above, on the left
    found = moved(x, generator(7)).squeeze(1)
    left = found[:, :, :14].sum(dim=(1, 2)) / found.sum(dim=(1, 2))
    assert bool(((left < 0.2) | (left > 0.8)).all())
    assert float((left > 0.5).double().mean()) == pytest.approx(0.5, abs=0.08)
    assert bool((found[:, :14].sum(dim=(1, 2)) > 0.9 * found.sum(dim=(1, 2))).all())


def test_a_third_are_plain_and_two_thirds_are_blends() -> None:
    draws = generator(8)
    plain = shapes(3, GREY, draws)
    blends = [blended(plain, draws), blended(moved(plain, draws), draws)]
    assert torch.equal(made_up(8, GREY, generator(8)), torch.cat([plain, *blends])[:8])


def test_smooth_noise_is_smooth_on_grids_of_several_sizes() -> None:
    found = smooth(300, (28, 28), generator(9))
    assert 0 <= float(found.min()) < float(found.max()) <= 1
    steps = found.diff(dim=2).abs().amax(dim=(1, 2))
    assert float(steps.max()) <= 13 / 27 + 1e-6  # of a grid of 14
    assert float((steps <= 1 / 27 + 1e-6).double().mean()) == pytest.approx(0.25, abs=0.1)
