"""Which items a user takes next, out of all that are unseen: logits of items on the last axis."""

from dataclasses import replace

import torch
from torch import Tensor

from fedkd.knowledge import label
from fedkd.tasks.base import Likelihood
from fedkd.tasks.bounded import OF_LOGITS, logits_of
from fedkd.tasks.likelihoods.categorical import IGNORED

SEEN = -1e4
"""The logit of an item that a model was shown, of which it says nothing. No probability is left of
it, float16 holds it exactly, and means of it are it again."""


def unseen(answers: Tensor) -> Tensor:
    """Of logits (N, I), which are of items that a model says something of: bool (N, I)."""
    return answers > SEEN / 2


def nll(answers: Tensor, targets: Tensor) -> Tensor:
    """The multinomial likelihood of Liang et al. 2018, arXiv:1802.05814: (N,), in nats.

    Of a user's items that count and are unseen, the mean of -log p, where p is the softmax of
    logits (N, I) over all unseen items that count; the paper has the sum, in which users with long
    histories outweigh the others. A user without any costs 0.

    Args:
        answers: logits (N, I), `SEEN` of items that the model was shown.
        targets: 1 for an item taken, 0 for one that is not, -100 for one that does not count.
    """
    count = unseen(answers) & (targets != IGNORED)
    log_p = answers.masked_fill(~count, SEEN).log_softmax(dim=-1)
    taken = count & (targets == 1)
    total = torch.where(taken, log_p, 0.0).sum(dim=-1)
    return -total / taken.sum(dim=-1).clamp(min=1)


def mean_nll(answers: Tensor, targets: Tensor) -> Tensor:
    """The mean of `nll`, a scalar."""
    return nll(answers, targets).mean()


def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """`knowledge.label.kd` of logits (N, I) over the items that neither has seen: (N,), in nats."""
    both = unseen(student) & unseen(teacher)
    hidden = SEEN * temperature  # once divided, as far below as without a temperature
    return label.kd(
        student.masked_fill(~both, hidden),
        teacher.masked_fill(~both, hidden),
        temperature=temperature,
    )


def decide(answers: Tensor) -> Tensor:
    """(N, I) -> (N, I): 1 for the likeliest item, -100 for those seen, 0 for all others."""
    best = torch.zeros_like(answers, dtype=torch.int64)
    best.scatter_(-1, answers.argmax(dim=-1, keepdim=True), 1)
    return best.masked_fill(~unseen(answers), IGNORED)


def _with_seen(found: Tensor, answers: Tensor) -> Tensor:
    """As `logits_of`, with `SEEN` where no more than half of the clients say anything."""
    shown = unseen(answers).float().mean(dim=0) <= 0.5
    return logits_of(found, answers).masked_fill(shown, SEEN)


MULTINOMIAL = Likelihood(
    nll, mean_nll, divergence, decide, bounded=replace(OF_LOGITS, back=_with_seen)
)
