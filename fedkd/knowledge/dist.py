"""Knowledge in predictions' correlations: DIST, Huang et al. 2022, arXiv:2205.10536.

A strong teacher's probabilities are hard to match; what matters is which class or sample gets more
than another. A Pearson correlation asks for just that: it forgives shift and scale. The paper's
loss is beta * inter_class(...).mean() + gamma * intra_class(...).mean().

Classes are the last axis and every other one is of places, as in `label`.
"""

import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge.checks import positive
from fedkd.knowledge.geometry import unit
from fedkd.knowledge.places import counted, zeroed


def pearson_distance(student: Tensor, teacher: Tensor, *, where: Tensor | None = None) -> Tensor:
    """1 - the Pearson correlation of two rows, per row: blind to each side's shift and scale > 0.

    A row is the last axis; per sample where each sample has one.

    Args:
        student: (..., C).
        teacher: (..., C).
        where: bool (...), which places count; None: all.

    Returns:
        (...) in [0, 2]; 0 where the rows agree, 1 where one of them is constant.

    Raises:
        ValueError: the shapes do not fit.
    """
    rows = counted(where, student=student, teacher=teacher)
    centred = [unit(each - each.mean(dim=-1, keepdim=True), dim=-1) for each in rows]
    return zeroed(1 - (centred[0] * centred[1]).sum(dim=-1), where)


def inter_class(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    where: Tensor | None = None,
) -> Tensor:
    """T^2 * `pearson_distance` of each place's probabilities: does the order of classes agree?

    Per place.

    Args:
        student: logits (..., C).
        teacher: logits (..., C).
        temperature: T > 0; both logits are divided by it.
        where: bool (...), which places count; None: all.

    Returns:
        (...) in [0, 2 T^2]; blind to a shift of either side's logits (not to their scale: the
        correlation is one of probabilities).

    Raises:
        ValueError: the shapes do not fit, or the temperature is not positive.
    """
    student_p, teacher_p = _probabilities(student, teacher, temperature, where)
    return temperature**2 * pearson_distance(student_p, teacher_p, where=where)


def intra_class(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    where: Tensor | None = None,
) -> Tensor:
    """T^2 * `pearson_distance` of each class's probabilities over all places: which have it?

    Couples all places that count, over every axis but the last: the samples of a batch, and of a
    sample its tokens or pixels.

    Args:
        student: logits (..., C).
        teacher: logits (..., C).
        temperature: T > 0; both logits are divided by it.
        where: bool (...), which places count; None: all.

    Returns:
        (C,) in [0, 2 T^2], a value for each class; 1 * T^2 where fewer than two places count.

    Raises:
        ValueError: the shapes do not fit, or the temperature is not positive.
    """
    student_p, teacher_p = (
        each.flatten(0, -2) if where is None else each[where]
        for each in _probabilities(student, teacher, temperature, where)
    )
    return temperature**2 * pearson_distance(student_p.T, teacher_p.T)


def _probabilities(
    student: Tensor, teacher: Tensor, temperature: float, where: Tensor | None
) -> tuple[Tensor, Tensor]:
    student, teacher = counted(where, student=student, teacher=teacher)
    positive(temperature=temperature)
    return F.softmax(student / temperature, dim=-1), F.softmax(teacher / temperature, dim=-1)
