"""Robust rules for answers, (K, N, *A) of K clients to (N, *A): no few of them decide.

A client's answer to one input is a point with one coordinate a number of it. Rules are pure, the
order of clients does not matter, and answers that are all equal come out as they are. Gradients
reach the answers; what a rule gives them to weigh is a constant.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fedkd.exchange.aggregation import points
from fedkd.exchange.aggregation.points import LEAST

_PART = 2**23
"""Numbers of all clients that are looked at in one piece, so that memory is bounded."""
_RATE = 3.0
"""By how much a weight falls with a score, in nats; the median client's score is 1."""


def median(answers: Tensor) -> Tensor:
    """The median of each number. Yin et al. 2018, arXiv:1803.01498.

    With f < K / 2 hostile clients it lies between the least and the largest honest number.
    """
    return points.middle(points.ordered(_wide(answers)))


def trimmed_mean(answers: Tensor, liars: int) -> Tensor:
    """Of each number the mean without the `liars` least and largest. Yin et al. 2018.

    arXiv:1803.01498. With f <= `liars` hostile clients it lies between the least and the largest
    honest number.

    Raises:
        ValueError: nothing would be left.
    """
    check_liars(len(answers), liars, least=2 * liars + 1)
    kept = points.ordered(_wide(answers))[liars : len(answers) - liars]
    return torch.stack(kept).mean(dim=0)


def geometric_median(answers: Tensor) -> Tensor:
    """The point with the least sum of distances to the clients' answers, for each input.

    By Weiszfeld's algorithm, smoothed, from the `median` of numbers on; Pillutla et al. 2022, RFA,
    arXiv:1912.13445. With f < K / 2 hostile clients it is no further from any point c than
    2 (K - f) / (K - 2 f) times the farthest honest answer is.
    """
    return _weighed(answers, _weights(answers, points.central))


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
    return _weighed(answers, _weights(answers, lambda each: points.filtered(each, liars)))


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
    apart = _weights(answers, lambda each: points.distances(each, points.central(each)))
    away = apart.mean(dim=1)
    scores = away / median(away).clamp(min=LEAST)
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


def _wide(answers: Tensor) -> Tensor:
    return answers if answers.dtype == torch.float64 else answers.float()


def _weights(answers: Tensor, rule: Callable[[Tensor], Tensor]) -> Tensor:
    """What a rule says of clients by products (n, K, K) -> (n, K): of all inputs (K, N)."""
    flat = answers.detach().reshape(*answers.shape[:2], -1)
    size = max(1, _PART // max(1, len(flat) * flat.shape[2]))
    found = []
    for part in torch.split(flat, size, dim=1):
        rows = part.cpu().double()
        around = (rows - median(rows)).transpose(0, 1)
        found.append(rule(around @ around.mT))
    return torch.cat(found).T


def _weighed(answers: Tensor, weights: Tensor) -> Tensor:
    """Answers (K, N, *A) and weights (K, N) -> (N, *A)."""
    wide = _wide(answers)
    return (weights.to(wide).reshape(*weights.shape, *[1] * (wide.dim() - 2)) * wide).sum(dim=0)
