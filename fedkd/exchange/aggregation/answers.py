"""Robust rules for answers, (K, N, *A) of K clients to (N, *A): no few of them decide.

A client's answer to one input is a point with one coordinate a number of it. Rules are pure, the
order of clients does not matter, and answers that are all equal come out as they are. Gradients
reach the answers; what a rule gives them to weigh is a constant.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_STEPS = 100
"""The most steps of Weiszfeld's algorithm."""
_TOLERANCE = 1e-7
"""How little a step moves, of how far answers are apart, when it ends."""
_SMOOTH = 1e-6
"""The least distance that is divided by, of how far answers are apart."""
_LEAST = 1e-300
"""Instead of 0 in a divisor, so that sums of its inverse are finite."""
_PART = 2**23
"""Numbers of all clients that are looked at in one piece, so that memory is bounded."""
_RATE = 3.0
"""By how much a weight falls with a score, in nats; the median client's score is 1."""


def median(answers: Tensor) -> Tensor:
    """The median of each number. Yin et al. 2018, arXiv:1803.01498.

    With f < K / 2 hostile clients it lies between the least and the largest honest number.
    """
    ordered, middle = _ordered(answers), len(answers) // 2
    return ordered[middle] / 2 + ordered[len(answers) - 1 - middle] / 2


def trimmed_mean(answers: Tensor, liars: int) -> Tensor:
    """Of each number the mean without the `liars` least and largest. Yin et al. 2018.

    arXiv:1803.01498. With f <= `liars` hostile clients it lies between the least and the largest
    honest number.

    Raises:
        ValueError: nothing would be left.
    """
    check_liars(len(answers), liars, least=2 * liars + 1)
    return _ordered(answers)[liars : len(answers) - liars].mean(dim=0)


def geometric_median(answers: Tensor) -> Tensor:
    """The point with the least sum of distances to the clients' answers, for each input.

    By Weiszfeld's algorithm, smoothed, from the `median` of numbers on; Pillutla et al. 2022, RFA,
    arXiv:1912.13445. With f < K / 2 hostile clients it is no further from any point c than
    2 (K - f) / (K - 2 f) times the farthest honest answer is.
    """
    return _weighed(answers, _weights(answers, _central))


def cronus(answers: Tensor, liars: int) -> Tensor:
    """The mean of what a filter leaves, for each input. Chang et al. 2019, arXiv:1912.11279.

    The direction in which the answers to an input vary most is that of the liars, if they do harm:
    so the answer that lies farthest out on it is left out, `liars` times, a filter as that of
    Diakonikolas et al. 2017, arXiv:1703.00893. The paper's code leaves them out in two halves, of
    which the second may keep a liar beside a louder one.

    Raises:
        ValueError: nobody would be left.
    """
    check_liars(len(answers), liars, least=2 * liars + 1)
    return _weighed(answers, _weights(answers, lambda points: _filtered(points, liars)))


def expguard(answers: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The mean in which clients weigh by how far they were from the rest, now and before.

    ExpGuard: Roux, Zimmer & Pokutta, ICLR 2025, arXiv:2402.12265. A client's score is its mean
    distance from the robust centre, here the `geometric_median`, over the median client's; its
    weight falls by the exponential of the sum of its scores. In the paper a score is a plain
    distance between probabilities, and nothing is forgotten.

    Args:
        answers: bounded, such as probabilities: a weight is one for all inputs, so that who is loud
            about a single one is heard.
        past: (K,), what counts of the scores of earlier rounds; None: nothing.

    Returns:
        The mean, and the sum of scores (K,), float64 on the CPU.
    """

    def distances(points: Tensor) -> Tensor:
        centre = (_central(points)[..., None] * points).sum(dim=0)
        away: Tensor = torch.linalg.vector_norm(points - centre, dim=2)
        return away

    away = _weights(answers, distances).mean(dim=1)
    scores = away / median(away).clamp(min=_LEAST)
    # Whoever is far beyond all others weighs nothing, and exp(-3 * 1000) is that.
    total = scores.clamp(max=1e3) + (0.0 if past is None else past.double())
    weights = torch.softmax(-_RATE * total, dim=0)
    return _weighed(answers, weights[:, None].expand(len(answers), answers.shape[1])), total


def check_liars(clients: int, liars: int, *, least: int) -> None:
    """Refuse to withstand more liars than a rule can.

    Raises:
        ValueError: fewer clients than `least`, or `liars` is negative.
    """
    if liars < 0 or clients < least:
        raise ValueError(
            f"{liars} liars among {clients} clients: expected at least {least} clients"
        )


def _ordered(answers: Tensor) -> Tensor:
    wide = answers if answers.dtype == torch.float64 else answers.float()
    return wide.sort(dim=0).values


def _weights(answers: Tensor, rule: Callable[[Tensor], Tensor]) -> Tensor:
    """What a rule says of clients, (K, n, D) -> (K, n), of answers a part at a time: (K, N)."""
    points = answers.detach().reshape(*answers.shape[:2], -1)
    size = max(1, _PART // max(1, len(points) * points.shape[2]))
    return torch.cat(
        [rule(part.cpu().double()) for part in torch.split(points, size, dim=1)], dim=1
    )


def _weighed(answers: Tensor, weights: Tensor) -> Tensor:
    """Answers (K, N, *A) and weights (K, N) -> (N, *A)."""
    wide = answers if answers.dtype == torch.float64 else answers.float()
    return (weights.to(wide).reshape(*weights.shape, *[1] * (wide.dim() - 2)) * wide).sum(dim=0)


def _central(points: Tensor) -> Tensor:
    """Points (K, N, D) -> the weights (K, N) by which their mean is the geometric median."""
    centre, weights = median(points), torch.empty(0)
    for _ in range(_STEPS):
        away = torch.linalg.vector_norm(points - centre, dim=2)
        scale = median(away)
        weights = 1 / away.clamp(min=(_SMOOTH * scale).clamp(min=_LEAST))
        weights = weights / weights.sum(dim=0)
        before, centre = centre, (weights[..., None] * points).sum(dim=0)
        moved = torch.linalg.vector_norm(centre - before, dim=1)
        if bool((moved <= _TOLERANCE * scale).all()):
            break
    return weights


def _filtered(points: Tensor, liars: int) -> Tensor:
    """Points (K, N, D) -> weights (K, N): equal, or 0 for who was left out."""
    kept = torch.ones(points.shape[:2], dtype=points.dtype)
    for _ in range(liars):
        centre = (kept[..., None] * points).sum(dim=0) / kept.sum(dim=0)[:, None]
        around = (kept[..., None] * (points - centre)).transpose(0, 1)
        # The leading eigenvector of the points' products has their places on the main direction.
        along = torch.linalg.eigh(around @ around.transpose(1, 2)).eigenvectors[..., -1].abs()
        # Who is out stays out: no place is below 0.
        far = torch.where(kept.T > 0, along, -1.0).argmax(dim=1)
        kept[far, torch.arange(len(far))] = 0.0
    return kept / kept.sum(dim=0)
