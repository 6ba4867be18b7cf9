"""Mechanisms: bound what one row can change, then add noise to hide it.

What a release costs follows from the noise multiplier alone, so a value must be clipped to the
sensitivity that it is released with. All draws are made in float64.
"""

import math
import secrets
from collections.abc import Sequence

import torch
from torch import Tensor

_WORDS = slice(24, 24 + 8 * 624)  # torch keeps the Mersenne Twister's words here, 8 bytes to each


GENERATOR = "torch.Generator, its whole state from the operating system"
"""What `system_generator` gives, for ledgers."""


def system_generator() -> torch.Generator:
    """A generator whose whole state comes from the operating system, each call anew.

    The one exception from `fedkd.rng`: a noise that a seed repeats can be subtracted. It takes no
    seed, so that nobody can give it one. Nor is it seeded: torch's CPU generator uses 32 bits of a
    seed, few enough to try them all.

    Nobody can predict it, but it is no cryptographic generator, and the noise drawn from it is not
    hardened against attacks on floating-point arithmetic (Mironov 2012).
    """
    generator = torch.Generator()
    state = generator.get_state()
    words = [secrets.randbits(32) for _ in range(624)]
    state[_WORDS] = torch.tensor(words, dtype=torch.int64).view(torch.uint8)
    return generator.set_state(state)


def clip(rows: Tensor, norm: float) -> Tensor:
    """Each row scaled down to an L2 norm of at most `norm`, over all its axes together.

    A row with a NaN or an infinity becomes zero: it may not pass, nor poison a sum.

    Args:
        rows: (N, ...), float32 or float64.
        norm: finite, > 0.

    Returns:
        The shape and type of `rows`; a row within `norm` is unchanged.

    Raises:
        ValueError: the norm is out of its range, or the rows have no first axis or another type.
    """
    _positive(norm=norm)
    flat = _flat(rows)
    peak = _peaks(flat)
    finite = torch.isfinite(peak)[:, None]
    flat = torch.where(finite, flat, 0)
    # Over its largest entry a row has a length between 1 and sqrt(D), whose square cannot overflow.
    direction = flat / torch.where(finite & (peak[:, None] > 0), peak[:, None], 1)
    length = torch.linalg.vector_norm(direction, dim=1, keepdim=True, dtype=torch.float64)
    inside = ~finite | (length * peak[:, None].double() <= norm)
    shortened = direction * (norm / length).to(flat.dtype)
    return torch.where(inside, flat, shortened).reshape(rows.shape)


def clipped_sum(gradients: Sequence[Tensor], norm: float) -> list[Tensor]:
    """Per-sample gradients, each sample's clipped over all parameters jointly, then summed.

    One sample more or less changes the sums by an L2 norm of at most `norm`, over all parameters
    together: the sum of DP-SGD, Abadi et al. 2016, arXiv:1607.00133. A sample with a NaN or an
    infinity in any parameter counts as zero in all.

    Args:
        gradients: (N, *shape_p) for each parameter p, float32 or float64.
        norm: finite, > 0.

    Returns:
        shape_p for each parameter, in order; zeros where N = 0.

    Raises:
        ValueError: the norm is out of its range, or the gradients differ in N or have another type.
    """
    _positive(norm=norm)
    flats = [_flat(gradient) for gradient in gradients]
    if len({len(flat) for flat in flats}) > 1:
        shapes = ", ".join(str(tuple(gradient.shape)) for gradient in gradients)
        raise ValueError(f"Expected gradients of one N, got {shapes}.")
    if not flats:
        return []
    lengths = torch.linalg.vector_norm(torch.stack([_lengths(flat) for flat in flats]), dim=0)
    weights = (norm / lengths).clamp(max=1)
    plain = _plain(weights, norm)
    if plain.all():
        sums = [weights.to(flat.dtype) @ flat for flat in flats]
    else:
        sums = [weights[plain].to(flat.dtype) @ flat[plain] for flat in flats]
        odd_rows = clip(torch.cat([flat[~plain] for flat in flats], dim=1), norm)
        odd = torch.split(odd_rows.sum(dim=0), [flat.shape[1] for flat in flats])
        sums = [total + more.to(total.dtype) for total, more in zip(sums, odd, strict=True)]
    return [total.reshape(each.shape[1:]) for total, each in zip(sums, gradients, strict=True)]


def gaussian(
    value: Tensor, *, sensitivity: float, noise_multiplier: float, generator: torch.Generator
) -> Tensor:
    """`value` with Gaussian noise of standard deviation noise_multiplier * sensitivity.

    Dwork & Roth 2014, appendix A.

    Args:
        value: any shape; finite, or what is not finite shows through the noise.
        sensitivity: the most that one unit changes `value` in L2 norm; finite, > 0.
        noise_multiplier: as `events.Gaussian` records it; finite, > 0.
        generator: from `system_generator`.

    Returns:
        The shape of `value`, and its type; float64 for integers.

    Raises:
        ValueError: the sensitivity or the noise multiplier is out of its range.
    """
    scale = _scale(sensitivity, noise_multiplier)
    return _plus(value, scale, _normal(value, generator))


def laplace(
    value: Tensor, *, sensitivity: float, noise_multiplier: float, generator: torch.Generator
) -> Tensor:
    """`value` with Laplace noise of scale noise_multiplier * sensitivity.

    Dwork et al. 2006, "Calibrating noise to sensitivity in private data analysis".

    Args:
        value: any shape; finite, or what is not finite shows through the noise.
        sensitivity: the most that one unit changes `value` in L1 norm; finite, > 0.
        noise_multiplier: as `events.Laplace` records it; finite, > 0.
        generator: from `system_generator`.

    Returns:
        The shape of `value`, and its type; float64 for integers. The noise is never infinite.

    Raises:
        ValueError: the sensitivity or the noise multiplier is out of its range.
    """
    scale = _scale(sensitivity, noise_multiplier)
    noise = _exponential(value, generator) - _exponential(value, generator)
    return _plus(value, scale, noise)


def noisy_votes(votes: Tensor, *, noise: float, generator: torch.Generator) -> Tensor:
    """The class with the most votes after noise, per query: GNMax.

    Papernot et al. 2018, arXiv:1802.08908. N queries are N steps of a Gaussian mechanism. A voter
    more or less changes a query's counts by 1 in L2 norm, a voter whose vote changes by sqrt(2).

    Args:
        votes: counts (N, C).
        noise: the standard deviation of the noise on each count; finite, > 0.
        generator: from `system_generator`.

    Returns:
        Classes (N,), int64.

    Raises:
        ValueError: the noise is out of its range, or the votes are not (N, C) with C >= 1.
    """
    _positive(noise=noise)
    if votes.dim() != 2 or votes.shape[1] == 0:
        raise ValueError(f"Expected votes of shape (N, C >= 1), got {tuple(votes.shape)}.")
    return _plus(votes.double(), noise, _normal(votes, generator)).argmax(dim=1)


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


def _flat(rows: Tensor) -> Tensor:
    """(N, ...) -> (N, D)."""
    if rows.dim() == 0 or rows.dtype not in {torch.float32, torch.float64}:
        found = f"{tuple(rows.shape)} of {rows.dtype}"
        raise ValueError(f"Expected rows (N, ...) of float32 or float64, got {found}.")
    return rows.reshape(len(rows), math.prod(rows.shape[1:]))


def _peaks(flat: Tensor) -> Tensor:
    """(N, D) -> (N,): the largest magnitude in each row, NaN if it holds one."""
    if flat.shape[1] == 0:
        return flat.new_zeros(len(flat))
    peaks: Tensor = torch.linalg.vector_norm(flat, ord=math.inf, dim=1)
    return peaks


def _lengths(flat: Tensor) -> Tensor:
    """(N, D) -> (N,): the L2 norm of each row, in float64; not finite if its square is not.

    A float32 norm over a million entries is short by 1e-3, which would let more than the norm pass;
    one over two thousand is right to 1e-6, and takes no copy in float64.
    """
    parts = [torch.linalg.vector_norm(part, dim=1) for part in torch.split(flat, 2048, dim=1)]
    lengths: Tensor = torch.linalg.vector_norm(torch.stack(parts).double(), dim=0)
    return lengths


def _plain(weights: Tensor, norm: float) -> Tensor:
    """(N,): which rows a weight can clip. The others are not finite, or their squares are not.

    A weight of 0 or NaN cannot keep such a row out of a sum, and one below the normal numbers of a
    float32 has lost digits. Squares that vanish shorten a length by up to about 1e-15, far below
    1e-12.
    """
    return (weights >= torch.finfo(torch.float32).tiny) & (norm >= 1e-12)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal draws of a shape, in float64, on the generator's device."""
    return torch.randn(
        like.shape, generator=generator, dtype=torch.float64, device=generator.device
    )


def _exponential(like: Tensor, generator: torch.Generator) -> Tensor:
    """Exponential draws of scale 1 of a shape, from 0 to 37, in float64."""
    uniform = torch.rand(
        like.shape, generator=generator, dtype=torch.float64, device=generator.device
    )
    return -torch.log1p(-uniform.clamp(max=1 - 2**-53))


def _plus(value: Tensor, scale: float, noise: Tensor) -> Tensor:
    noisy = value.double() + scale * noise.to(value.device)
    return noisy.to(value.dtype) if value.is_floating_point() else noisy
