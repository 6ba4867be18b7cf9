"""Answers in a form in which none is louder than a sure one, so that robust rules compare them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedkd.knowledge.places import spoken

_LEAST = 1e-7
"""The least probability of yes or no, and of what nobody agrees on."""


@dataclass(frozen=True)
class Bounded:
    """How answers become bounded, and back.

    Attributes:
        into: answers (K, N, *A) -> (K, N, *A), bounded.
        back: ((N, *A) of the bounded form, the clients' answers (K, N, *A)) -> an answer (N, *A).
            Of equal answers it gives back the answer.
    """

    into: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor]


def _softmax(logits: Tensor) -> Tensor:
    return torch.softmax(logits.float(), dim=-1)


def logits_of(probabilities: Tensor, logits: Tensor) -> Tensor:
    """Probabilities (N, *S, C), of any sum, as logits at the height of most clients' (K, N, *S, C).

    Where no more than half of the clients say anything, nothing is said: all are 0.
    """
    said = logits.float()
    log_p = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
    height = said.logsumexp(dim=-1, keepdim=True).median(dim=0).values
    most = spoken(said).float().mean(dim=0) > 0.5
    return torch.where(most[..., None], log_p.log_softmax(dim=-1) + height, 0.0)


def _simplex(probabilities: Tensor) -> Tensor:
    wide = probabilities.float()
    return wide / wide.sum(dim=-1, keepdim=True).clamp(min=1.0)


def _renormalised(found: Tensor, probabilities: Tensor) -> Tensor:
    most = spoken(probabilities).float().mean(dim=0) > 0.5
    kept = found.clamp(min=_LEAST)
    return torch.where(most[..., None], kept / kept.sum(dim=-1, keepdim=True), 0.0)


def _log_odds(found: Tensor, _answers: Tensor) -> Tensor:
    return torch.logit(found, eps=_LEAST)


OF_LOGITS = Bounded(_softmax, logits_of)
"""Logits of classes on the last axis, as probabilities."""
OF_PROBABILITIES = Bounded(_simplex, _renormalised)
"""Probabilities of classes on the last axis, in [0, 1], scaled down where their sum is above 1; all
0 where a client says nothing."""
OF_LOG_ODDS = Bounded(lambda answers: answers.float().sigmoid(), _log_odds)
"""Log odds, each by itself, as probabilities."""
