"""Images that nobody's data went into: random shapes, on which a student is taught.

A teacher's answers on almost any varied images carry what it knows: Asano and Saeed 2021,
arXiv:2112.00725, distil from crops of a single picture; Baradad et al. 2021, arXiv:2106.05963,
learn to see from leaves, shapes and noise. What is drawn here is ours.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

_MOST = 6
"""Shapes in an image."""
_GRIDS = (2, 4, 7, 14)
"""Sides of the grids that smooth noise is drawn on."""
_CHUNK = 1000  # images at a time, for memory


def made_up(count: int, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """A third shapes, a third blends of two of them, a third blends of two that moved.

    Args:
        count: N, at least 1.
        shape: (channels, height, width).
        generator: of every draw.

    Returns:
        float32 (N, channels, height, width), in [0, 1].
    """
    third = -(-count // 3)
    drawn = shapes(third, shape, generator)
    parts = [drawn, blended(drawn, generator), blended(moved(drawn, generator), generator)]
    return torch.cat(parts)[:count]


def shapes(count: int, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """One to six tapered superellipses, many with a mirror image, each plain, mottled or striped.

    Args: as `made_up`.
    """
    channels, height, width = shape
    parts = []
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        drawn = _draw(size * channels, (height, width), generator, alike=channels)
        parts.append(drawn.view(size, *shape))
    return torch.cat(parts)


def blended(x: Tensor, generator: Generator) -> Tensor:
    """Each image mixed with another, in a share drawn uniformly: mixup, arXiv:1710.09412."""
    share = torch.rand(len(x), 1, 1, 1, generator=generator)
    return share * x + (1 - share) * x[torch.randperm(len(x), generator=generator)]


def moved(x: Tensor, generator: Generator) -> Tensor:
    """Each image mirrored or not, turned by some 0.2 radians, scaled and shifted a little."""

    def within(most: float) -> Tensor:
        return most * (2 * torch.rand(len(x), generator=generator) - 1)

    angle, scale = within(0.2), 1 + within(0.15)
    mirror = torch.where(torch.rand(len(x), generator=generator) < 0.5, -1.0, 1.0)
    rows = [
        torch.stack([mirror * scale * angle.cos(), -angle.sin(), within(0.1)], dim=1),
        torch.stack([mirror * angle.sin(), scale * angle.cos(), within(0.1)], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _draw(count: int, size: tuple[int, int], generator: Generator, *, alike: int) -> Tensor:
    """`count` grey images; each `alike` in a row show the same outlines in other fillings."""

    def uniform(low: float = 0.0, high: float = 1.0, *, outline: bool = False) -> Tensor:
        if outline:
            draws = torch.rand(count // alike, 1, 1, generator=generator)
            draws = draws.repeat_interleave(alike, dim=0)
        else:
            draws = torch.rand(count, 1, 1, generator=generator)
        return low + (high - low) * draws

    def chance(p: float, *, outline: bool = False) -> Tensor:
        return uniform(outline=outline) < p

    rows, columns = (torch.linspace(-1, 1, side) for side in size)
    at = rows[:, None].expand(size), columns[None, :].expand(size)
    image = smooth(count, size, generator) * chance(0.15) * uniform()
    mirrored = chance(0.6, outline=True)
    for number in range(_MOST):
        first = number == 0  # it is there, large and near the centre
        spread = 0.4 if first else 1.0
        x = spread * uniform(-0.6, 0.6, outline=True)
        y = spread * uniform(-0.7, 0.7, outline=True)
        tilted = chance(0.5, outline=True)
        angle = torch.where(tilted, uniform(-math.pi / 2, math.pi / 2, outline=True), 0.0)
        reach = 0.95 if first else 0.65
        width, height = uniform(0.05, reach, outline=True), uniform(0.05, reach, outline=True)
        power = 0.8 * torch.exp(uniform(0, 3, outline=True))
        tapered = chance(0.5, outline=True)
        taper = torch.where(tapered, uniform(-0.6, 0.6, outline=True), 0.0)
        form = (width, height, power, taper)
        inside = _inside(at, (x, y), angle, form)
        inside |= mirrored & _inside(at, (-x, y), -angle, form)
        inside &= chance(1.0 if first else 0.6, outline=True)
        filling = _filling(smooth(count, size, generator), at, uniform, hole=0.0 if first else 0.2)
        image = torch.where(inside, filling, image)
    grain = 0.08 * torch.randn(image.shape, generator=generator) * chance(0.6) * (image > 0)
    return (image + grain).clamp(0, 1)


def smooth(count: int, size: tuple[int, int], generator: Generator) -> Tensor:
    """Smooth noise in [0, 1] on a grid as coarse as chance has it: (N, height, width)."""
    kind = torch.randint(len(_GRIDS), (count,), generator=generator)
    noise = torch.empty(count, *size)
    for number, each in enumerate(_GRIDS):
        rows = kind == number
        coarse = torch.rand(int(rows.sum()), 1, each, each, generator=generator)
        fine = F.interpolate(coarse, size=size, mode="bilinear", align_corners=True)
        noise[rows] = fine[:, 0]
    return noise


def _inside(
    at: tuple[Tensor, Tensor],
    centre: tuple[Tensor, Tensor],
    angle: Tensor,
    form: tuple[Tensor, Tensor, Tensor, Tensor],
) -> Tensor:
    """Whether each pixel lies in |u / width|^power + |v / height|^power < 1, wider where v is."""
    width, height, power, taper = form
    y, x = at[0] - centre[1], at[1] - centre[0]
    u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    tapered = (width * (1 + taper * v / height)).clamp(min=0.05)
    return (u / tapered).abs() ** power + (v / height).abs() ** power < 1


def _filling(
    noise: Tensor, at: tuple[Tensor, Tensor], uniform: Callable[..., Tensor], *, hole: float
) -> Tensor:
    """What a shape is filled with, (N, height, width): one level, noise, stripes, or nothing."""
    level = torch.where(uniform() < hole, 0.0, uniform())
    along = torch.where(uniform() < 0.5, at[0], at[1])
    stripes = 0.5 + 0.5 * torch.sin(uniform(2, 16) * along + uniform(0, 2 * math.pi))
    kind = uniform()
    mottled = torch.where(kind < 0.75, 0.4 + 0.6 * noise, 0.3 + 0.7 * stripes)
    return level * torch.where(kind < 0.4, 1.0, mottled)
