"""Knowledge in logits beyond one temperature: standardised, at several levels, on a curriculum.

Classes are the last axis and every other one is of places, as in `label`.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge.checks import has_shape, positive
from fedkd.knowledge.geometry import unit
from fedkd.knowledge.label import kd
from fedkd.knowledge.places import counted, zeroed


def standardised(logits: Tensor) -> Tensor:
    """Logits (..., C) with mean 0 and standard deviation 1 over the classes; 0 where all are equal.

    The deviation divides by C, as the paper says; its code divides by C - 1, which is the same as a
    temperature higher by sqrt(C / (C - 1)).
    """
    centred = logits - logits.mean(dim=-1, keepdim=True)
    return math.sqrt(logits.shape[-1]) * unit(centred, dim=-1)


def standardised_kd(
    student: Tensor, teacher: Tensor, *, temperature: float, where: Tensor | None = None
) -> Tensor:
    """`label.kd` of standardised logits, per place: the student need not have the teacher's range.

    Sun et al. 2024, arXiv:2403.01427: each row has a temperature of its own, T times its standard
    deviation. In T^2 stands the shared T.

    Args:
        student: logits (..., C).
        teacher: logits (..., C).
        temperature: T > 0, the base temperature; 2 in the paper, with weight 9.
        where: bool (...), which places count; None: all.

    Returns:
        (...), at least 0; blind to either side's shift and scale > 0; 0 where the standardised
        logits agree.

    Raises:
        ValueError: the shapes do not fit, or the temperature is not positive.
    """
    student, teacher = counted(where, student=student, teacher=teacher)
    shown = standardised(student), standardised(teacher)
    return kd(*shown, temperature=temperature, where=where)


def instance_level(
    student: Tensor,
    teacher: Tensor,
    *,
    temperatures: Sequence[float],
    where: Tensor | None = None,
) -> Tensor:
    """The sum of `label.kd` over several temperatures, per place.

    Jin et al. 2023, Multi-Level Logit Distillation, CVPR, pp. 24276-24285, of one view of each
    sample; the paper compares a weakly and a strongly augmented one. (The authors' code multiplies
    a mean over the batch by the share of records that it keeps, about half, so that it keeps all.)

    Args:
        student: logits (..., C).
        teacher: logits (..., C).
        temperatures: each > 0; 2, 3, 4, 5 and 6 in the paper's code.
        where: bool (...), which places count; None: all.

    Returns:
        (...), at least 0, and 0 where both distributions agree.

    Raises:
        ValueError: the shapes do not fit, there is no temperature, or one is not positive.
    """
    if not temperatures:
        raise ValueError("expected temperatures=() to hold at least one")
    values = [kd(student, teacher, temperature=t, where=where) for t in temperatures]
    return torch.stack(values).sum(dim=0)


def batch_level(
    student: Tensor, teacher: Tensor, *, temperature: float, where: Tensor | None = None
) -> Tensor:
    """Squared distance of how alike places' probabilities are, summed over row i.

    G = P P^T with probabilities P (M, C), of places over every axis but the last. Jin et al. 2023,
    as `instance_level`: the mean over i is ||G_s - G_t||^2 / M. Takes M^2 numbers. Couples all
    places that count.

    Args:
        student: logits (..., C).
        teacher: logits (..., C).
        temperature: T > 0; both logits are divided by it.
        where: bool (...), which places count; None: all.

    Returns:
        (M,), a value for each place that counts; at least 0, and 0 where both distributions agree.

    Raises:
        ValueError: the shapes do not fit, or the temperature is not positive.
    """
    p, q = _probabilities(student, teacher, temperature, where)
    return (p @ p.T - q @ q.T).square().sum(dim=1)


def class_level(
    student: Tensor, teacher: Tensor, *, temperature: float, where: Tensor | None = None
) -> Tensor:
    """Squared distance of how alike classes' probabilities are, summed over class i.

    G = P^T P with probabilities P (M, C), of places over every axis but the last. Jin et al. 2023,
    as `instance_level`: the mean over i is ||G_s - G_t||^2 / C. G is a sum, so the value grows
    with the square of the number of places: 64 in the paper. Couples all places that count.

    Args:
        student: logits (..., C).
        teacher: logits (..., C).
        temperature: T > 0; both logits are divided by it.
        where: bool (...), which places count; None: all.

    Returns:
        (C,), a value for each class; at least 0, and 0 where both distributions agree.

    Raises:
        ValueError: the shapes do not fit, or the temperature is not positive.
    """
    p, q = _probabilities(student, teacher, temperature, where)
    return (p.T @ p - q.T @ q).square().sum(dim=1)


def _probabilities(
    student: Tensor, teacher: Tensor, temperature: float, where: Tensor | None
) -> list[Tensor]:
    """Rows (M, C) of the places that count."""
    both = counted(where, student=student, teacher=teacher)
    positive(temperature=temperature)
    return [
        F.softmax((each.flatten(0, -2) if where is None else each[where]) / temperature, dim=-1)
        for each in both
    ]


def adversarial_kd(
    student: Tensor,
    teacher: Tensor,
    temperature: Tensor,
    *,
    strength: float,
    where: Tensor | None = None,
) -> Tensor:
    """`label.kd` by a temperature that learns to make it harder, per place.

    Its gradient is that of `label.kd` times -`strength`, so that a step down for the student is a
    step up for the temperature. Li et al. 2023 (CTKD), arXiv:2211.16231; `curriculum_strength`
    says how the strength grows.

    Args:
        student: logits (..., C).
        teacher: logits (..., C).
        temperature: T > 0, of each place (...).
        strength: at least 0.
        where: bool (...), which places count; None: all.

    Returns:
        (...), at least 0, and 0 where both distributions agree.

    Raises:
        ValueError: the shapes do not fit, or the strength is negative.
    """
    student, teacher = counted(where, student=student, teacher=teacher)
    has_shape(tuple(student.shape[:-1]), temperature=temperature)
    if not strength >= 0:
        raise ValueError(f"expected strength={strength} >= 0")
    fixed = temperature.detach()
    turned = fixed - strength * (temperature - fixed)
    divided = (each / turned[..., None] for each in (student, teacher))
    return zeroed(turned.square() * kd(*divided, temperature=1.0), where)


def curriculum_strength(epoch: int, *, epochs: int) -> float:
    """How strongly `adversarial_kd` works in an epoch: from easy to hard along half a cosine.

    (1 - cos(pi e / E)) / 2 with e = min(epoch, E): Li et al. 2023, arXiv:2211.16231, up to 1.

    Args:
        epoch: from 1; 0 is before the first, and gives 0.
        epochs: E >= 1, the epoch from which on the strength is 1; 10 in the paper.

    Raises:
        ValueError: a number is out of range.
    """
    if epoch < 0 or epochs < 1:
        raise ValueError(f"expected epoch={epoch} >= 0 and epochs={epochs} >= 1")
    return (1 - math.cos(math.pi * min(epoch, epochs) / epochs)) / 2
