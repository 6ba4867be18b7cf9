"""Knowledge in rankings: which items a teacher puts first. No loss here couples samples.

Items are the last axis, of logits (N, I), one user a row. A loss looks at the items that `where`
marks, such as those that neither model was shown. The papers sample the items that a student is
asked about, for catalogues of which nobody scores all; here all are scored, and nothing is drawn.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge.checks import has_shape, positive, same_shape

_NOWHERE = -1e9
"""The logit of an item that does not count: no probability is left of it, nor a gradient."""


def ranking(
    student: Tensor,
    teacher: Tensor,
    *,
    k: int,
    decay: float,
    discrepancy: float,
    where: Tensor | None = None,
) -> Tensor:
    """Ranking distillation: the teacher's k first items are positive for the student; per sample.

    Tang & Wang 2018, arXiv:1809.07428: -sum_r w_r log sigmoid(s_r) over ranks r from 1. The weight
    w_r grows with the rank's importance, exp(-r / decay), and with how far the student puts the
    item behind it, tanh(max(0, discrepancy * (rank of the student - r))); weights sum to 1. The
    paper estimates the student's rank by a sample of items, here it is exact.

    Args:
        student: logits (N, I).
        teacher: logits (N, I).
        k: how many of the teacher's first items, at least 1; no more than count are looked at.
        decay: lambda > 0, in ranks.
        discrepancy: mu > 0.
        where: bool (N, I), which items count; None: all.

    Returns:
        (N,), at least 0; 0 where the student puts each item as far in front as the teacher.

    Raises:
        ValueError: the shapes do not fit, or a number is not positive.
    """
    positive(k=k, decay=decay, discrepancy=discrepancy)
    student, first, real = _first(student, teacher, k, where)
    ranks = torch.arange(1, first.shape[1] + 1).to(student)
    own = student.gather(1, first)
    before = (student.detach()[:, None, :] > own.detach()[:, :, None]).sum(dim=-1)
    behind = torch.tanh((discrepancy * (before + 1 - ranks)).clamp(min=0))
    weights = torch.exp(-ranks / decay) * behind * real
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(own.dtype).tiny)
    return -(weights * F.logsigmoid(torch.where(real, own, 0.0))).sum(dim=1)


def relaxed_ranking(
    student: Tensor, teacher: Tensor, *, k: int, where: Tensor | None = None
) -> Tensor:
    """Relaxed ranking distillation: the teacher's k first items in order, all others behind them.

    Kang et al. 2020, DE-RRD, arXiv:2012.04357: the negative log-likelihood of a Plackett-Luce
    ranking that says nothing of the order among the others, in nats, per sample. Here the mean over
    the k ranks, where the paper has the sum; and the k first items, and all others, where it draws
    some of both.

    Args:
        student: logits (N, I).
        teacher: logits (N, I).
        k: as in `ranking`.
        where: as in `ranking`.

    Returns:
        (N,), at least 0.

    Raises:
        ValueError: the shapes do not fit, or k is not positive.
    """
    positive(k=k)
    student, first, real = _first(student, teacher, k, where)
    own = student.gather(1, first)
    others = student.scatter(1, first, _NOWHERE).logsumexp(dim=1, keepdim=True)
    # Behind rank r stand the ranks after it and all others: a sum from the last on.
    behind = torch.cat([own, others], dim=1).flip(1).logcumsumexp(dim=1).flip(1)[:, :-1]
    values = torch.where(real, behind - own, 0.0)
    return values.sum(dim=1) / real.sum(dim=1).clamp(min=1)


def _first(
    student: Tensor, teacher: Tensor, k: int, where: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The student's logits of what counts, the teacher's first items (N, K), which of them count.

    Where fewer than k count, the last of the K do not.
    """
    same_shape(student=student, teacher=teacher)
    if student.dim() != 2:
        raise ValueError(f"student {tuple(student.shape)}: expected (N, I), with items last")
    if where is None:
        where = torch.ones_like(student, dtype=torch.bool)
    has_shape(tuple(student.shape), where=where)
    student = student.masked_fill(~where, _NOWHERE)
    first = teacher.masked_fill(~where, -torch.inf).topk(min(k, student.shape[1]), dim=1).indices
    return student, first, where.gather(1, first)
