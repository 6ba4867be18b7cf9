"""Points in an image, each by a heatmap of its own: where on a grid of cells it is likely to be.

Tompson et al. 2014, arXiv:1406.2984. Places are in pixels from the image's upper left corner, so
that the middle of its first pixel is (0.5, 0.5).
"""

import math

import torch
from torch import Tensor

from fedkd.tasks.base import Likelihood

_FAINTEST = 1e-6
"""The least heat of which a logarithm is taken."""


def grid(image: tuple[int, int], stride: int) -> tuple[int, int]:
    """How many cells of `stride` pixels an image (H, W) has, down and across; the last is cut."""
    height, width = image
    return -(-height // stride), -(-width // stride)


def heat(points: Tensor, cells: tuple[int, int], *, stride: int, sigma: float) -> Tensor:
    """Points (N, K, 3) as heatmaps (N, h, w, K): 1 at a point, a Gaussian around it.

    Args:
        points: x and y in pixels, and what is not looked at here.
        cells: h and w.
        stride: a cell's side in pixels.
        sigma: the Gaussian's standard deviation, in cells.
    """

    def along(places: Tensor, count: int) -> Tensor:
        """(N, K) -> (N, count, K)."""
        middles = torch.arange(count, dtype=places.dtype, device=places.device) + 0.5
        away = middles[:, None] - (places / stride)[:, None]
        return (away.square() / (-2 * sigma**2)).exp()

    height, width = cells
    return along(points[..., 1], height)[:, :, None] * along(points[..., 0], width)[:, None]


def located(heatmaps: Tensor, image: tuple[int, int], stride: int) -> Tensor:
    """Heatmaps (N, h, w, K) as points (N, K, 3), to a fraction of a cell; all are visible.

    The hottest cell, and from it and its neighbours the top of the parabola through the logarithms
    of their heat, along each axis by itself: exact for a Gaussian. Zhang et al. 2020,
    arXiv:1910.06278. No further than half a cell, and not where a neighbour is missing.
    """
    n, _, width, points = heatmaps.shape
    maps = heatmaps.detach().nan_to_num().movedim(-1, 1)
    hottest = maps.reshape(n, points, -1).argmax(dim=-1)
    row, column = hottest // width, hottest % width
    logs = maps.clamp(min=_FAINTEST).log()
    each, every = torch.arange(n)[:, None], torch.arange(points)[None]
    across = _top(logs[each, every, row], column)
    down = _top(logs[each, every, :, column], row)
    x = ((column + 0.5 + across) * stride).clamp(0, image[1])
    y = ((row + 0.5 + down) * stride).clamp(0, image[0])
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def _top(lines: Tensor, at: Tensor) -> Tensor:
    """How far from cell `at` (N, K) a parabola has its top, in [-1/2, 1/2], of lines (N, K, S)."""
    inside = (at > 0) & (at < lines.shape[-1] - 1)
    left, middle, right = (
        lines.gather(-1, (at + step).clamp(0, lines.shape[-1] - 1)[..., None])[..., 0]
        for step in (-1, 0, 1)
    )
    bend = (2 * middle - left - right).clamp(min=_FAINTEST)
    return torch.where(inside, (right - left) / (2 * bend), 0.0).clamp(-0.5, 0.5)


def heatmaps(image: tuple[int, int], *, stride: int, sigma: float) -> Likelihood:
    """The likelihood of K points (N, K, 3) given heatmaps (N, h, w, K).

    A visible point is drawn as `heat`, of which each cell is a number with a Gaussian around the
    answer. Its variance is what a drawn point comes to, pi sigma^2, so that `nll`, half the squared
    error over the variance, summed over cells, is 1/2 for an empty map, however fine cells are; a
    mean over the visible points, 0 for a record without any. A point that is not visible may be
    anywhere, and so says nothing of its map. `divergence` is half the squared difference of two
    answers, likewise and over all points, whatever the temperature. `decide` is `located`.

    Args:
        image: height and width in pixels.
        stride: a cell's side in pixels.
        sigma: of the drawn Gaussian, in cells.
    """
    cells, variance = grid(image, stride), math.pi * sigma**2

    def nll(answers: Tensor, targets: Tensor) -> Tensor:
        drawn = heat(targets, cells, stride=stride, sigma=sigma).to(answers.dtype)
        visible = targets[..., 2] > 0
        errors = torch.where(visible, _half_squares(answers, drawn) / variance, 0.0)
        return errors.sum(dim=1) / visible.sum(dim=1).clamp(min=1)

    def mean_nll(answers: Tensor, targets: Tensor) -> Tensor:
        return nll(answers, targets).mean()

    def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        softened = _half_squares(student / temperature, teacher / temperature)
        return temperature**2 * softened.mean(dim=1) / variance

    def decide(answers: Tensor) -> Tensor:
        return located(answers, image, stride)

    return Likelihood(nll, mean_nll, divergence, decide)


def _half_squares(left: Tensor, right: Tensor) -> Tensor:
    """(N, h, w, K) and (N, h, w, K) -> (N, K): summed over cells."""
    return (left - right).square().sum(dim=(1, 2)) / 2
