"""Exposure: how far up a planted secret stands among all that it might have been.

Carlini et al. 2019, "The Secret Sharer", arXiv:1802.08232.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedkd.auditing.verdicts import CONFIDENCE, Bound, Claim, Outcome, Verdict

_MOST = 1000.0
"""Beyond which epsilon no bound is sought."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """What a model gives away of secrets that were drawn from a space of R."""

    on: str
    """What is attacked."""
    bits: tuple[float, ...]
    """Of each secret, from 0 to `most`."""
    most: float
    """Bits of a secret that the model finds likelier than all others: log2 of their number."""
    times: int
    """How often each stands in the training texts."""
    epsilon: float
    """A lower bound, at the confidence asked for."""
    verdict: Verdict | None
    """None where nothing is claimed: NO DP."""


def ranks(losses: Tensor, planted: Tensor) -> Tensor:
    """Each secret's place among the fills that were not planted and itself, from 1: int64 (S,).

    A fill that the model finds as likely stands before it, so that what a model cannot tell apart
    exposes nothing.

    Args:
        losses: of each fill, (R,), in nats.
        planted: which fills are the secrets, int64 (S,).
    """
    losses = losses.nan_to_num(nan=math.inf, posinf=math.inf)  # what is no number tells nothing
    others = torch.ones(len(losses), dtype=torch.bool)
    others[planted] = False
    before: Tensor = losses[others][None, :] <= losses[planted][:, None]
    return before.sum(dim=1) + 1


def least_epsilon(rank: int, size: int, *, times: int, delta: float, doubt: float) -> float:
    """The largest epsilon of one record that a secret's rank refutes; 0 where it refutes none.

    A model that never saw the secret ranks a fill that was drawn from `size` by R at the most with
    probability R / size. With `times` records more that is e^(times epsilon) as likely, and
    delta (1 + e^epsilon + ...) more (group privacy, Dwork & Roth 2014, theorem 2.2).

    Args:
        rank: from 1.
        size: of how many fills.
        times: how many records hold the secret.
        delta: of the claim.
        doubt: how likely a true claim may be refuted.
    """

    def refuted(epsilon: float) -> bool:
        extra = sum(delta * math.exp(epsilon * step) for step in range(times))
        return math.exp(epsilon * times) * rank / size + extra < doubt

    low, high = 0.0, _MOST / times
    if not refuted(low):
        return 0.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def judge(
    losses: Tensor,
    planted: Tensor,
    *,
    on: str,
    threat: str,
    times: int,
    claim: Claim | None,
    confidence: float = CONFIDENCE,
) -> Exposure:
    """What a model's losses say of secrets, held against a claim.

    Args:
        losses: the negative log-likelihood of each fill, (R,).
        planted: which fills are the secrets, int64 (S,), drawn without the model.
        on: what is attacked, in words.
        threat: who attacks, and what they see.
        times: how many records hold each secret.
        claim: of one record; None where nothing is claimed.
        confidence: in (0, 1), of the bounds on all secrets together.
    """
    size = len(losses) - len(planted) + 1
    doubt = (1 - confidence) / len(planted)
    delta = 0.0 if claim is None else claim.delta
    found = ranks(losses, planted).tolist()
    bounds = [
        least_epsilon(rank, size, times=times, delta=delta, doubt=doubt) for rank in (*found, 1)
    ]
    epsilon, ceiling = max(bounds[:-1]), bounds[-1]
    verdict = None
    if claim is not None:
        outcome: Outcome = "VIOLATION" if epsilon > claim.epsilon else "NO POWER"
        bound = Bound("exposure", epsilon, ceiling)
        what = f"secrets in {on}"
        verdict = Verdict(what, outcome, threat, len(planted), confidence, claim, (bound,))
    bits = tuple(math.log2(size / rank) for rank in found)
    return Exposure(on, bits, math.log2(size), times, epsilon, verdict)
