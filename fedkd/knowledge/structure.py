"""Knowledge in how the places of one image relate to each other, for answers at every place."""

from torch import Tensor

from fedkd.knowledge.checks import same_places
from fedkd.knowledge.geometry import unit


def pairwise(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of the cosines between all pairs of places, per sample.

    Liu et al. 2019, arXiv:1903.04197, "pair-wise": places are nodes of a graph, a_ij the cosine of
    the features at i and j, and the loss the mean over i and j of (a_ij^s - a_ij^t)^2. He et al.
    2019, CVPR, pp. 578-587, have the same as "affinity", of translated features. Memory grows with
    the square of the number of places: pool large maps before.

    Args:
        student: maps (N, C, H, W).
        teacher: maps (N, C', H, W), of as many places.

    Returns:
        (N,) in [0, 4]; blind to either side's scale at each place; 0 where the cosines agree.

    Raises:
        ValueError: shapes are no maps, or of unlike N, H or W.
    """
    same_places(student=student, teacher=teacher)
    ours, theirs = (unit(maps.flatten(2), dim=1) for maps in (student, teacher))
    gap = ours.transpose(1, 2) @ ours - theirs.transpose(1, 2) @ theirs
    return gap.square().mean(dim=(1, 2))


def adapted(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of features at length 1 at each place, per sample.

    He et al. 2019, CVPR, pp. 578-587: what is passed on beside affinity, with the 2-norm for both
    of the paper's norms.

    Args:
        student: maps (N, C, H, W), after a learned adapter.
        teacher: maps of the same shape, translated by an auto-encoder.

    Returns:
        (N,) in [0, 4].

    Raises:
        ValueError: shapes are no maps, or of unlike N, H or W.
    """
    same_places(student=student, teacher=teacher)
    gap = unit(student, dim=1) - unit(teacher, dim=1)
    return gap.square().sum(dim=1).flatten(1).mean(dim=1)
