"""Knowledge in labels: what a teacher says about each class. No loss here couples samples."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge.checks import has_shape, positive, same_shape


def kd(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T^2 * KL(teacher || student) in nats, per sample.

    Hinton et al. 2015, arXiv:1503.02531. The factor keeps gradients of one size as T grows.

    Args:
        student: logits (N, C).
        teacher: logits (N, C).
        temperature: T > 0; both logits are divided by it.

    Returns:
        (N,), at least 0, and 0 where both distributions agree.

    Raises:
        ValueError: the shapes differ, or the temperature is not positive.
    """
    same_shape(student=student, teacher=teacher)
    positive(temperature=temperature)
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    divergence = log_teacher.exp() * (log_teacher - log_student)
    return temperature**2 * divergence.sum(dim=-1)


def soft_cross_entropy(student: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with soft targets in nats, per sample.

    Args:
        student: logits (N, C).
        target: probabilities (N, C), each row summing to 1.

    Returns:
        (N,), at least the entropy of the target.

    Raises:
        ValueError: the shapes differ.
    """
    same_shape(student=student, target=target)
    return -(target * F.log_softmax(student, dim=-1)).sum(dim=-1)


def mae(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of logits over classes, per sample.

    The digest loss of FedMD, Li & Wang 2019, arXiv:1910.03581.

    Args:
        student: logits (N, C).
        teacher: logits (N, C).

    Returns:
        (N,), at least 0. Unlike `kd` it changes when one side's logits are shifted.

    Raises:
        ValueError: the shapes differ.
    """
    same_shape(student=student, teacher=teacher)
    return (student - teacher).abs().mean(dim=-1)


def jsd(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T^2 * JS(teacher, student), the Jensen-Shannon divergence in nats, per sample.

    JS(p, q) = KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2; Lin 1991, IEEE Transactions on
    Information Theory 37(1) (no arXiv). Symmetric and bounded, so a teacher that is sure and wrong
    cannot dominate; the factor is that of `kd`.

    Args:
        student: logits (N, C).
        teacher: logits (N, C).
        temperature: T > 0; both logits are divided by it.

    Returns:
        (N,) in [0, T^2 log 2], and 0 where both distributions agree.

    Raises:
        ValueError: the shapes differ, or the temperature is not positive.
    """
    same_shape(student=student, teacher=teacher)
    positive(temperature=temperature)
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    log_middle = torch.logaddexp(log_student, log_teacher) - math.log(2)
    to_middle = log_student.exp() * (log_student - log_middle)
    to_middle = to_middle + log_teacher.exp() * (log_teacher - log_middle)
    return temperature**2 * to_middle.sum(dim=-1) / 2


def dkd(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: float,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """T^2 * (alpha * TCKD + beta * NCKD) in nats, per sample: decoupled distillation.

    Zhao et al. 2022, arXiv:2203.08679. TCKD is the KL between (p_y, 1 - p_y) of teacher and
    student, NCKD the KL between their distributions over the other classes. In `kd` the second is
    weighted by 1 - p_y of the teacher, which silences it where the teacher is sure:
    KD = TCKD + (1 - p_y) NCKD.

    Args:
        student: logits (N, C), C at least 2.
        teacher: logits (N, C).
        target: the true classes, integers (N,).
        temperature: T > 0; both logits are divided by it.
        alpha: weight of the target class's part.
        beta: weight of the other classes' part.

    Returns:
        (N,), at least 0 for weights that are, and 0 where both distributions agree.

    Raises:
        ValueError: the shapes do not match, there is one class, the target is not of integers, or
            the temperature is not positive.
    """
    same_shape(student=student, teacher=teacher)
    positive(temperature=temperature)
    if student.dim() != 2 or student.shape[1] < 2:
        raise ValueError(f"student {tuple(student.shape)}: expected (N, C) with C at least 2")
    has_shape((len(student),), target=target)
    if target.is_floating_point():
        raise ValueError(f"target is {target.dtype}: expected integers, the true classes")
    student_target, student_others = _decoupled(student / temperature, target)
    teacher_target, teacher_others = _decoupled(teacher / temperature, target)
    tckd = (teacher_target.exp() * (teacher_target - student_target)).sum(dim=-1)
    nckd = (teacher_others.exp() * (teacher_others - student_others)).sum(dim=-1)
    return temperature**2 * (alpha * tckd + beta * nckd)


def _decoupled(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of (target, any other) and, given another, of each other: (N, 2), (N, C-1).

    The others are gathered, not masked by a large negative number: no digit is lost to the mask.
    """
    log_p = F.log_softmax(logits, dim=-1)
    column = target[:, None].long()
    places = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = log_p.gather(1, places + (places >= column))
    rest = others.logsumexp(dim=-1, keepdim=True)
    return torch.cat([log_p.gather(1, column), rest], dim=1), others - rest
