"""Knowledge in labels: what a teacher says about each class. No loss here couples samples.

Classes are the last axis. Every other one is of places, of which each has a distribution of its
own: records (N, C), tokens (N, T, C), pixels (N, H, W, C). A loss has a value for each place,
and 0 where `where` says that it does not count; the caller divides by how many do.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge.checks import positive
from fedkd.knowledge.places import counted, log_probabilities, target_column, zeroed


def kd(
    student: Tensor, teacher: Tensor, *, temperature: float, where: Tensor | None = None
) -> Tensor:
    """T^2 * KL(teacher || student) in nats, per place.

    Hinton et al. 2015, arXiv:1503.02531. The factor keeps gradients of one size as T grows.

    Args:
        student: logits (..., C).
        teacher: logits (..., C).
        temperature: T > 0; both logits are divided by it.
        where: bool (...), which places count; None: all.

    Returns:
        (...), at least 0, and 0 where both distributions agree.

    Raises:
        ValueError: the shapes do not fit, or the temperature is not positive.
    """
    student, teacher = counted(where, student=student, teacher=teacher)
    positive(temperature=temperature)
    log_student = log_probabilities(student, temperature)
    log_teacher = log_probabilities(teacher, temperature)
    divergence = log_teacher.exp() * (log_teacher - log_student)
    return zeroed(temperature**2 * divergence.sum(dim=-1), where)


def soft_cross_entropy(student: Tensor, target: Tensor, *, where: Tensor | None = None) -> Tensor:
    """Cross-entropy with soft targets in nats, per place.

    Args:
        student: logits (..., C).
        target: probabilities (..., C), summing to 1 over classes.
        where: bool (...), which places count; None: all.

    Returns:
        (...), at least the entropy of the target.

    Raises:
        ValueError: the shapes do not fit.
    """
    student, target = counted(where, student=student, target=target)
    return zeroed(-(target * F.log_softmax(student, dim=-1)).sum(dim=-1), where)


def mae(student: Tensor, teacher: Tensor, *, where: Tensor | None = None) -> Tensor:
    """Mean absolute difference of logits over the last axis, per place.

    The digest loss of FedMD, Li & Wang 2019, arXiv:1910.03581.

    Args:
        student: logits or numbers (..., C).
        teacher: logits or numbers (..., C).
        where: bool (...), which places count; None: all.

    Returns:
        (...), at least 0. Unlike `kd` it changes when one side's logits are shifted.

    Raises:
        ValueError: the shapes do not fit.
    """
    student, teacher = counted(where, student=student, teacher=teacher)
    return zeroed((student - teacher).abs().mean(dim=-1), where)


def jsd(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    beta: float = 0.5,
    where: Tensor | None = None,
) -> Tensor:
    """T^2 * JS(teacher, student), the Jensen-Shannon divergence in nats, per place.

    JS(p, q) = beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q. At beta 1/2
    it is Lin's, 1991, IEEE Transactions on Information Theory 37(1) (no arXiv): symmetric and
    bounded, so a teacher that is sure and wrong cannot dominate. With other shares it is the
    generalised one of Agarwal et al. 2024 (GKD), arXiv:2306.13649, for models that write: near 0
    its gradient is like that of `kd`, near 1 like that of `writing.reverse_kl`. T^2 is that of
    `kd`.

    Args:
        student: logits (..., C).
        teacher: logits (..., C).
        temperature: T > 0; both logits are divided by it.
        beta: in (0, 1), the teacher's share.
        where: bool (...), which places count; None: all.

    Returns:
        (...) in [0, T^2 log 2], and 0 where both distributions agree.

    Raises:
        ValueError: the shapes do not fit, the temperature is not positive, or beta is not in
            (0, 1).
    """
    student, teacher = counted(where, student=student, teacher=teacher)
    positive(temperature=temperature, beta=beta)
    if beta >= 1:
        raise ValueError(f"expected beta={beta} < 1")
    log_student = log_probabilities(student, temperature)
    log_teacher = log_probabilities(teacher, temperature)
    # Twice each share, so that at one half nothing is added and nothing multiplied: the same bits.
    ours, theirs = 2 * (1 - beta), 2 * beta
    log_middle = torch.logaddexp(log_student + math.log(ours), log_teacher + math.log(theirs))
    log_middle = log_middle - math.log(2)
    to_middle = ours * (log_student.exp() * (log_student - log_middle))
    to_middle = to_middle + theirs * (log_teacher.exp() * (log_teacher - log_middle))
    return zeroed(temperature**2 * to_middle.sum(dim=-1) / 2, where)


def dkd(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float,
    alpha: float = 1.0,
    beta: float = 8.0,
    where: Tensor | None = None,
) -> Tensor:
    """T^2 * (alpha * TCKD + beta * NCKD) in nats, per place: decoupled distillation.

    Zhao et al. 2022, arXiv:2203.08679. TCKD is the KL between (p_y, 1 - p_y) of teacher and
    student, NCKD the KL between their distributions over the other classes. In `kd` the second is
    weighted by 1 - p_y of the teacher, which silences it where the teacher is sure:
    KD = TCKD + (1 - p_y) NCKD.

    Args:
        student: logits (..., C), C at least 2.
        teacher: logits (..., C).
        target: the true classes, integers (...), in [0, C) where they count.
        temperature: T > 0; both logits are divided by it.
        alpha: weight of the target class's part.
        beta: weight of the other classes' part.
        where: bool (...), which places count; None: all.

    Returns:
        (...), at least 0 for weights that are, and 0 where both distributions agree.

    Raises:
        ValueError: the shapes do not fit, there is one class, the target is not of integers, or
            the temperature is not positive.
    """
    student, teacher = counted(where, student=student, teacher=teacher)
    positive(temperature=temperature)
    if student.shape[-1] < 2:
        raise ValueError(f"student {tuple(student.shape)}: expected (..., C) with C at least 2")
    column = target_column(student, target, where)
    student_target, student_others = _decoupled(student / temperature, column)
    teacher_target, teacher_others = _decoupled(teacher / temperature, column)
    tckd = (teacher_target.exp() * (teacher_target - student_target)).sum(dim=-1)
    nckd = (teacher_others.exp() * (teacher_others - student_others)).sum(dim=-1)
    return zeroed(temperature**2 * (alpha * tckd + beta * nckd), where)


def one_for_all(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    gamma: float = 1.0,
    where: Tensor | None = None,
) -> Tensor:
    """Cross-entropy with the teacher's probabilities, the target's raised, in nats, per place.

    -((1 + p_y)^gamma - 1) log q_y - sum_{c != y} p_c^gamma log q_c: OFA-KD, Hao et al. 2023,
    arXiv:2310.19444, as in the authors' code, without the labels' own part. At gamma 1 it is
    `soft_cross_entropy`; a higher one trusts an unlike teacher in the target, less in the others.

    Args:
        student: logits (..., C).
        teacher: logits (..., C).
        target: the true classes, integers (...), in [0, C) where they count.
        temperature: T > 0; both logits are divided by it, and no T^2 makes up for it.
        gamma: at least 1.
        where: bool (...), which places count; None: all.

    Returns:
        (...), at least 0; not 0 where both agree.

    Raises:
        ValueError: the shapes do not fit, the target is not of integers, or a number is out of
            range.
    """
    student, teacher = counted(where, student=student, teacher=teacher)
    positive(temperature=temperature)
    if not gamma >= 1:
        raise ValueError(f"expected gamma={gamma} >= 1")
    column = target_column(student, target, where)
    log_student = log_probabilities(student, temperature)
    p = F.softmax(teacher / temperature, dim=-1)
    raised = p.pow(gamma).scatter(-1, column, (1 + p.gather(-1, column)).pow(gamma) - 1)
    return zeroed(-(raised * log_student).sum(dim=-1), where)


def _decoupled(logits: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of (target, any other), (..., 2), and, given another, of each, (..., C-1).

    The others are gathered, not masked by a large negative number: no digit is lost to the mask.
    """
    log_p = F.log_softmax(logits, dim=-1)
    columns = torch.arange(logits.shape[-1] - 1, device=logits.device)
    others = log_p.gather(-1, columns + (columns >= column))
    rest = others.logsumexp(dim=-1, keepdim=True)
    return torch.cat([log_p.gather(-1, column), rest], dim=-1), others - rest
