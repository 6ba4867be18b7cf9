"""Knowledge in labels: what a teacher says about each class."""

import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge.checks import same_shape


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
    if not temperature > 0:
        raise ValueError(f"expected temperature={temperature} > 0")
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
