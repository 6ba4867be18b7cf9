"""Knowledge in predictions' correlations: DIST, Huang et al. 2022, arXiv:2205.10536.

A strong teacher's probabilities are hard to match; what matters is which class or sample gets more
than another. A Pearson correlation asks for just that: it forgives shift and scale. The paper's
loss is beta * inter_class(...).mean() + gamma * intra_class(...).mean().
"""

import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge.checks import positive, same_shape
from fedkd.knowledge.geometry import unit


def pearson_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - the Pearson correlation of two rows, per row: blind to each side's shift and scale > 0.

    Per sample where a row is a sample.

    Args:
        student: (N, C).
        teacher: (N, C).

    Returns:
        (N,) in [0, 2]; 0 where the rows agree, 1 where one of them is constant.

    Raises:
        ValueError: the shapes differ.
    """
    same_shape(student=student, teacher=teacher)
    centred = [unit(each - each.mean(dim=-1, keepdim=True), dim=-1) for each in (student, teacher)]
    return 1 - (centred[0] * centred[1]).sum(dim=-1)


def inter_class(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T^2 * `pearson_distance` of each sample's probabilities: does the order of classes agree?

    Per sample.

    Args:
        student: logits (N, C).
        teacher: logits (N, C).
        temperature: T > 0; both logits are divided by it.

    Returns:
        (N,) in [0, 2 T^2]; blind to a shift of either side's logits (not to their scale: the
        correlation is one of probabilities).

    Raises:
        ValueError: the shapes differ, or the temperature is not positive.
    """
    student_p, teacher_p = _probabilities(student, teacher, temperature)
    return temperature**2 * pearson_distance(student_p, teacher_p)


def intra_class(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T^2 * `pearson_distance` of each class's probabilities over the batch: which samples have it?

    Couples the samples of a batch.

    Args:
        student: logits (N, C).
        teacher: logits (N, C).
        temperature: T > 0; both logits are divided by it.

    Returns:
        (C,) in [0, 2 T^2], a value for each class; 1 * T^2 for a batch of one sample.

    Raises:
        ValueError: the shapes differ, or the temperature is not positive.
    """
    student_p, teacher_p = _probabilities(student, teacher, temperature)
    return temperature**2 * pearson_distance(student_p.T, teacher_p.T)


def _probabilities(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    same_shape(student=student, teacher=teacher)
    positive(temperature=temperature)
    return F.softmax(student / temperature, dim=-1), F.softmax(teacher / temperature, dim=-1)
