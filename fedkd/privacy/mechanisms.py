"""Mechanisms: bound what one row can change, then add noise to hide it.

What a release costs follows from the noise multiplier alone, so a value must be clipped to the
sensitivity that it is released with.

What is released stands on a grid, whose step follows from the sensitivity and from how many numbers
are released, both public. The value is rounded to the grid, and the noise is a whole number of
steps: a real Gaussian or Laplace draw, rounded. So every multiple of the step can come out of every
value, and low bits tell nothing. To add whole steps and then round is to round after adding, so the
release is a function of the value on the grid with real noise on it, and costs what that costs.
Rounding can move neighbours apart by a step in each number; the sensitivity that the noise is
scaled to is larger by that, and by what float32 lets through a clip. The first is at most one part
in 16,384, unless `finest` asks for coarser steps; then it is whatever these make it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fedkd.privacy.gradients import Built, Gradients, flat
from fedkd.privacy.grid import FINENESS, evenly, on_grid, step_of
from fedkd.privacy.source import MOST_SCALE, NoiseSource

STABILITY = 0.01
"""What automatic clipping adds to a gradient's length, as its authors do."""
_CLIPPING = 2.0**-16
"""By how much more than the norm a clip in float32 may leave; it is below 1e-6. Where products
cancel it is more, up to 3e-4 on rows made for it, which `learning.dp.sgd` pays for."""
_LOOSE = 32.0
"""How far above a gradient's length, or the clip, what adds up to it may be, if it is clipped by a
weight alone: a length that float32 tells from products has an error of up to 2^-24 times its
square, and their sum one of 2^-24 times itself. What cancels more is added up first."""


def clip(rows: Tensor, norm: float, *, automatic: bool = False) -> Tensor:
    """Each row scaled down to an L2 norm of at most `norm`, over all its axes together.

    A row with a NaN or an infinity becomes zero: it may not pass, nor poison a sum.

    Args:
        rows: (N, ...), float32 or float64.
        norm: finite, > 0.
        automatic: see `clipped_sum`.

    Returns:
        The shape and type of `rows`; a row within `norm` is unchanged, unless automatic.

    Raises:
        ValueError: the norm is out of its range, or the rows have no first axis or another type.
    """
    _positive(norm=norm)
    flattened = flat(rows)
    peak = _peaks(flattened)[:, None]
    finite = torch.isfinite(peak)
    flattened = torch.where(finite, flattened, 0)
    # Over its largest entry a row has a length between 1 and sqrt(D), whose square cannot overflow.
    unit = torch.where(finite & (peak > 0), peak, 1)
    direction = flattened / unit
    length = torch.linalg.vector_norm(direction, dim=1, keepdim=True, dtype=torch.float64)
    inside = ~finite | (length * peak.double() <= norm)
    if automatic:
        inside, length = ~finite, length + STABILITY / unit.double()
    shortened = direction * (norm / length).to(rows.dtype)
    return torch.where(inside, flattened, shortened).reshape(rows.shape)


def clipped_sum(
    gradients: Sequence[Tensor | Gradients], norm: float, *, automatic: bool = False
) -> list[Tensor]:
    """Per-sample gradients, each sample's clipped over all parameters jointly, then summed.

    One sample more or less changes the sums by an L2 norm of at most `norm`, over all parameters
    together: the sum of DP-SGD, Abadi et al. 2016, arXiv:1607.00133. A sample with a NaN or an
    infinity in any parameter counts as zero in all.

    Args:
        gradients: (N, *shape_p) for each parameter p, float32 or float64, or in another form.
        norm: finite, > 0.
        automatic: scale each to the norm, whatever its length l, but for l / (l + `STABILITY`) of
            it: AUTO-S, Bu et al. 2022, arXiv:2206.07136. It is below the norm all the same.

    Returns:
        shape_p for each parameter, in order; zeros where N = 0.

    Raises:
        ValueError: the norm is out of its range, or the gradients differ in N or have another type.
    """
    _positive(norm=norm)
    forms = [Built(each) if isinstance(each, Tensor) else each for each in gradients]
    if len({form.shape[0] for form in forms}) > 1:
        shapes = ", ".join(str(form.shape) for form in forms)
        raise ValueError(f"Expected gradients of one N, got {shapes}.")
    if not forms:
        return []
    lengths, bounds = (
        torch.linalg.vector_norm(torch.stack(each), dim=0)
        for each in ([form.lengths() for form in forms], [form.bounds() for form in forms])
    )
    if automatic:
        # What is short is made longer, and so is the error of its length.
        scales = lengths + STABILITY
        weights = norm / scales
    else:
        scales = lengths.clamp(min=norm)
        weights = (norm / lengths).clamp(max=1)
    plain = _plain(weights, norm) & (bounds <= _LOOSE * scales)
    if plain.all():
        return [form.weighted(weights) for form in forms]
    sums = [form.weighted(weights, plain) for form in forms]
    rows = [flat(form.rows(~plain)) for form in forms]
    odd = clip(torch.cat(rows, dim=1), norm, automatic=automatic).sum(dim=0)
    parts = torch.split(odd, [each.shape[1] for each in rows])
    return [
        total + more.to(total.dtype).reshape(total.shape)
        for total, more in zip(sums, parts, strict=True)
    ]


def gaussian(
    value: Tensor,
    *,
    sensitivity: float,
    noise_multiplier: float,
    source: NoiseSource,
    weights: Tensor | None = None,
    release: float | None = None,
    finest: float = 0.0,
) -> Tensor:
    """`value` on a grid, with Gaussian noise of standard deviation noise_multiplier * sensitivity.

    Dwork & Roth 2014, appendix A; the grid is explained at the top of this file.

    Args:
        value: any shape; a NaN counts as 0.
        sensitivity: the most that one unit changes `weights * value` in L2 norm, with all else that
            is released together; finite, > 0.
        noise_multiplier: as `events.Gaussian` records it; finite, > 0.
        source: of the noise.
        weights: of the shape of `value`, > 0; noise is smaller by as much where they are larger.
            None: ones.
        release: the L2 norm of the weights of all that is released together; None: of these.
        finest: the least step that the grid may have, a power of two; 0 for any.

    Returns:
        The shape of `value`, and its type; float64 for integers.

    Raises:
        ValueError: the sensitivity or the noise multiplier is out of its range.
    """
    scale = _scale(sensitivity, noise_multiplier)
    flat = None if weights is None else weights.double().flatten()
    if release is None:
        release = math.sqrt(value.numel()) if flat is None else float(flat.norm())
    step = max(step_of(sensitivity, release), finest)
    scale *= 1 + step * release / sensitivity + _CLIPPING
    steps = scale / step
    scales = evenly(steps, value) if flat is None else steps / flat.numpy()
    return on_grid(value, step, source.gaussian, scales)


def laplace(
    value: Tensor,
    *,
    sensitivity: float,
    noise_multiplier: float,
    source: NoiseSource,
    release: float | None = None,
) -> Tensor:
    """`value` on a grid, with Laplace noise of scale noise_multiplier * sensitivity.

    Dwork et al. 2006, "Calibrating noise to sensitivity in private data analysis"; the grid is
    explained at the top of this file.

    Args:
        value: any shape; a NaN counts as 0.
        sensitivity: the most that one unit changes `value` in L1 norm, with all else that is
            released together; finite, > 0.
        noise_multiplier: as `events.Laplace` records it; finite, > 0.
        source: of the noise.
        release: how many numbers are released together; None: these.

    Returns:
        The shape of `value`, and its type; float64 for integers.

    Raises:
        ValueError: the sensitivity or the noise multiplier is out of its range.
    """
    scale = _scale(sensitivity, noise_multiplier)
    norm = value.numel() if release is None else release
    step = step_of(sensitivity, norm)
    scale *= 1 + step * norm / sensitivity
    return on_grid(value, step, source.laplace, evenly(scale / step, value))


def most_laplace(numbers: int) -> float:
    """The largest noise multiplier, and some below it, that `laplace` draws for so many numbers."""
    return MOST_SCALE * FINENESS / (4 * numbers)


def noisy_votes(votes: Tensor, *, noise: float, source: NoiseSource) -> Tensor:
    """The class with the most votes after noise, per query: GNMax.

    Papernot et al. 2018, arXiv:1802.08908. N queries are N steps of a Gaussian mechanism. A voter
    more or less changes a query's counts by 1 in L2 norm, a voter whose vote changes by sqrt(2).

    Args:
        votes: counts (N, C).
        noise: the standard deviation of the noise on each count; finite, > 0.
        source: of the noise.

    Returns:
        Classes (N,), int64.

    Raises:
        ValueError: the noise is out of its range, or the votes are not (N, C) with C >= 1.
    """
    _positive(noise=noise)
    if votes.dim() != 2 or votes.shape[1] == 0:
        raise ValueError(f"Expected votes of shape (N, C >= 1), got {tuple(votes.shape)}.")
    # Each query is a release of its own.
    noisy = gaussian(
        votes.double(),
        sensitivity=1.0,
        noise_multiplier=noise,
        source=source,
        release=math.sqrt(votes.shape[1]),
    )
    return noisy.argmax(dim=1)


def _positive(**values: float) -> None:
    """Raise `ValueError`, naming the value, unless each is finite and above 0."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"Expected a finite {name}={value} > 0.")


def _scale(sensitivity: float, noise_multiplier: float) -> float:
    """The scale of the noise; a product that vanishes or overflows is refused, too."""
    _positive(sensitivity=sensitivity, noise_multiplier=noise_multiplier)
    scale = noise_multiplier * sensitivity
    _positive(scale=scale)
    return scale


def _peaks(flat: Tensor) -> Tensor:
    """(N, D) -> (N,): the largest magnitude in each row, NaN if it holds one."""
    if flat.shape[1] == 0:
        return flat.new_zeros(len(flat))
    peaks: Tensor = torch.linalg.vector_norm(flat, ord=math.inf, dim=1)
    return peaks


def _plain(weights: Tensor, norm: float) -> Tensor:
    """(N,): which rows a weight can clip. The others are not finite, or their squares are not.

    A weight of 0 or NaN cannot keep such a row out of a sum, and one below the normal numbers of a
    float32 has lost digits. Squares that vanish shorten a length by up to about 1e-15, far below
    1e-12.
    """
    return (weights >= torch.finfo(torch.float32).tiny) & (norm >= 1e-12)
