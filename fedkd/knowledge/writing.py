"""Knowledge in what is likely to come next: divergences for models that write.

As in `label`, classes are the last axis, of a writer the tokens of its vocabulary; a loss has a
value for each place, and 0 where `where` says that it does not count. None couples samples.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge.checks import has_shape, positive
from fedkd.knowledge.places import counted, log_probabilities, zeroed


def reverse_kl(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    alpha: float = 0.0,
    where: Tensor | None = None,
) -> Tensor:
    """T^2 * KL(student || (1 - alpha) teacher + alpha student) in nats, per place.

    At alpha 0 the reverse KL, by which a student that cannot do all that its teacher does is sure
    of some of it (Gu et al. 2024, MiniLLM, arXiv:2306.08543); above, the skew reverse KL of
    DistiLLM (Ko et al. 2024, arXiv:2402.03898), at most T^2 log(1 / alpha). The factor T^2 is that
    of `label.kd`.

    Args:
        student: logits (..., C).
        teacher: logits (..., C).
        temperature: T > 0; both logits are divided by it.
        alpha: in [0, 1), the student's share of what it is compared with.
        where: bool (...), which places count; None: all.

    Returns:
        (...), at least 0, and 0 where both distributions agree.

    Raises:
        ValueError: the shapes do not fit, the temperature is not positive, or alpha is not in
            [0, 1).
    """
    return _skewed(teacher, student, temperature, alpha, where)


def skew_kl(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    alpha: float = 0.1,
    where: Tensor | None = None,
) -> Tensor:
    """T^2 * KL(teacher || (1 - alpha) student + alpha teacher) in nats, per place.

    The skew KL of DistiLLM, Ko et al. 2024, arXiv:2402.03898: where a student all but excludes what
    its teacher says, the gradient is bounded. At alpha 0 it is `label.kd`.

    Args:
        student: logits (..., C).
        teacher: logits (..., C).
        temperature: T > 0; both logits are divided by it.
        alpha: in [0, 1), the teacher's share of what it is compared with; the paper's is 0.1.
        where: bool (...), which places count; None: all.

    Returns:
        (...), at least 0, at most T^2 log(1 / alpha), and 0 where both distributions agree.

    Raises:
        ValueError: as `reverse_kl`.
    """
    return _skewed(student, teacher, temperature, alpha, where)


def top_k(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    k: int,
    where: Tensor | None = None,
) -> Tensor:
    """T^2 * KL(teacher || student) of the teacher's k likeliest classes and all others as one.

    So a teacher passes on k numbers a place, whatever the vocabulary. Never above `label.kd`, and
    equal to it where k is C - 1 or more. Compare Tan et al. 2019, arXiv:1902.10461, who keep the
    likeliest k and have no other class. In nats, per place.

    Args:
        student: logits (..., C).
        teacher: logits (..., C).
        temperature: T > 0; both logits are divided by it.
        k: at least 1.
        where: bool (...), which places count; None: all.

    Returns:
        (...), at least 0.

    Raises:
        ValueError: the shapes do not fit, or temperature or k is not positive.
    """
    student, teacher = counted(where, student=student, teacher=teacher)
    positive(temperature=temperature, k=k)
    if k >= student.shape[-1] - 1:
        ours, theirs = (log_probabilities(each, temperature) for each in (student, teacher))
    else:
        named = teacher.topk(k, dim=-1).indices
        ours, theirs = (with_rest(each / temperature, named) for each in (student, teacher))
    return zeroed(temperature**2 * (theirs.exp() * (theirs - ours)).sum(dim=-1), where)


def with_rest(logits: Tensor, named: Tensor) -> Tensor:
    """Log-probabilities of some classes of each place, and of all others together, per place.

    Args:
        logits: (..., C).
        named: int64 (..., k), unlike classes, k < C.

    Returns:
        (..., k + 1), the others last.
    """
    log_p = log_probabilities(logits, 1.0)
    ruled_out = torch.finfo(log_p.dtype).min
    others = log_p.scatter(-1, named, ruled_out).logsumexp(dim=-1, keepdim=True)
    return torch.cat([log_p.gather(-1, named), others], dim=-1)


def universal(student: Tensor, teacher: Tensor, *, where: Tensor | None = None) -> Tensor:
    """The distance of sorted probabilities, per place: models need not have the same classes.

    The universal logit distillation loss, Boizard et al. 2024, arXiv:2402.12030: the Wasserstein-1
    distance where moving any class to any other costs the same, sum |p_(i) - q_(i)| over ranks i,
    the shorter filled up with zeros. Places are aligned by their number; those beyond either's last
    do not count.

    Args:
        student: logits (N, ..., C).
        teacher: logits (N, ..., D); its places may be more or fewer.
        where: bool (N, ...), which of the student's places count; None: all.

    Returns:
        (N, ...), as the student's places, in [0, 2].

    Raises:
        ValueError: the shapes do not fit.
    """
    if (
        student.dim() != teacher.dim()
        or not 2 <= student.dim() <= 3
        or len(student) != len(teacher)
    ):
        raise ValueError(
            f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}: expected (N, C) and "
            "(N, D), or (N, T, C) and (N, U, D)"
        )
    if where is not None:
        has_shape(tuple(student.shape[:-1]), where=where)
    ours, theirs = (
        each.softmax(dim=-1).sort(dim=-1, descending=True).values for each in (student, teacher)
    )
    most = max(ours.shape[-1], theirs.shape[-1])
    ours, theirs = (F.pad(each, (0, most - each.shape[-1])) for each in (ours, theirs))
    missing = 0
    if student.dim() == 3:
        missing = max(0, ours.shape[1] - theirs.shape[1])
        ours, theirs = ours[:, : theirs.shape[1]], theirs[:, : ours.shape[1]]
    values = F.pad((ours - theirs).abs().sum(dim=-1), (0, missing))
    return zeroed(values, where)


def _skewed(
    one: Tensor, other: Tensor, temperature: float, alpha: float, where: Tensor | None
) -> Tensor:
    """T^2 * KL(other || (1 - alpha) one + alpha other)."""
    one, other = counted(where, student=one, teacher=other)
    positive(temperature=temperature)
    if not 0 <= alpha < 1:
        raise ValueError(f"expected alpha={alpha} in [0, 1)")
    log_one, log_other = (log_probabilities(each, temperature) for each in (one, other))
    mixed = log_one
    if alpha:
        mixed = torch.logaddexp(log_one + math.log1p(-alpha), log_other + math.log(alpha))
    return zeroed(temperature**2 * (log_other.exp() * (log_other - mixed)).sum(dim=-1), where)
