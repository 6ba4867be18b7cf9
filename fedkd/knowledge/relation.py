"""Knowledge in relations among samples: RKD, Park et al. 2019, arXiv:1904.05068.

Every loss here couples the samples of a batch. Features of student and teacher may be of unlike
shapes. A relation is a potential of n samples; the loss is smooth L1 (quadratic below 1) between
the student's potential and the teacher's. Repeated samples (i, i) count in the means, with relation
0, as in the authors' code: 25 * distance + 50 * angle are the weights that go with it.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge.checks import same_batch
from fedkd.knowledge.geometry import by_mean, distances, unit


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 of distances, in units of their mean, averaged over row i (RKD-D).

    Args:
        student: features (N, ...).
        teacher: features (N, ...), of any shape.

    Returns:
        (N,), at least 0; the mean over i is the loss. Blind to either side's shift, rotation and
        scale; 0 where the features agree. Couples the samples of a batch.

    Raises:
        ValueError: the batches differ, or there are no features.
    """
    same_batch(student=student, teacher=teacher)
    relations = by_mean(distances(student)), by_mean(distances(teacher))
    return F.smooth_l1_loss(*relations, reduction="none").mean(dim=1)


def angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 of cosines of angles at sample i, mean over pairs of the batch (RKD-A).

    Memory grows as N^3 and N^2 D.

    Args:
        student: features (N, ...).
        teacher: features (N, ...), of any shape.

    Returns:
        (N,) in [0, 1.5]; the mean over i is the loss. Blind to either side's shift, rotation and
        scale; 0 where the features agree. Couples the samples of a batch.

    Raises:
        ValueError: the batches differ, or there are no features.
    """
    same_batch(student=student, teacher=teacher)
    relations = _cosines_at(student.flatten(1)), _cosines_at(teacher.flatten(1))
    return F.smooth_l1_loss(*relations, reduction="none").mean(dim=(1, 2))


def _cosines_at(rows: Tensor) -> Tensor:
    """Cosine at i between the directions to j and to k: (N, D) -> (N, N, N)."""
    directions = unit(rows[None] - rows[:, None], dim=2)
    return directions @ directions.transpose(1, 2)


def relation(
    student: Tensor, teacher: Tensor, tuples: Tensor, *, potential: Callable[[Tensor], Tensor]
) -> Tensor:
    """Smooth L1 between the potentials of student and teacher on given n-tuples of samples.

    The general form of RKD; `distance` and `angle` are this with `pair_distance` and
    `triplet_cosine` on all tuples.

    Args:
        student: features (N, ...).
        teacher: features (N, ...), of any shape.
        tuples: indices of samples (M, n), integers.
        potential: maps the flattened features of all tuples (M, n, D) to relations (M, ...); it
            sees all M at once, so that it can normalise over them.

    Returns:
        (M,), at least 0: the mean of each tuple's relations; 0 where the features agree. Couples
        the samples of a batch.

    Raises:
        ValueError: the batches differ, there are no features, the tuples are not (M, n) integers,
            or the potential does not give M relations, alike for both.
    """
    same_batch(student=student, teacher=teacher)
    if tuples.dim() != 2 or tuples.is_floating_point():
        raise ValueError(
            f"tuples {tuple(tuples.shape)} of {tuples.dtype}: expected integers (M, n)"
        )
    found = potential(student.flatten(1)[tuples]), potential(teacher.flatten(1)[tuples])
    for each in found:
        if each.dim() == 0 or len(each) != len(tuples) or each.shape != found[0].shape:
            shapes = ", ".join(str(tuple(one.shape)) for one in found)
            raise ValueError(f"potentials {shapes}: expected the same ({len(tuples)}, ...)")
    return F.smooth_l1_loss(*found, reduction="none").reshape(len(tuples), -1).mean(dim=1)


def pair_distance(points: Tensor) -> Tensor:
    """Potential of pairs: distance, in units of the mean of those above 0. (M, 2, D) -> (M,)."""
    return by_mean(torch.linalg.vector_norm(points[:, 0] - points[:, 1], dim=1))


def triplet_cosine(points: Tensor) -> Tensor:
    """Potential of triples: cosine of the angle at the first. (M, 3, D) -> (M,) in [-1, 1]."""
    to_second = unit(points[:, 1] - points[:, 0], dim=1)
    to_third = unit(points[:, 2] - points[:, 0], dim=1)
    return (to_second * to_third).sum(dim=1)
