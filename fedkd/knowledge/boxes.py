"""What a detector passes on beside its answers: features near objects, and shapes as a bound."""

from torch import Tensor

from fedkd.knowledge.checks import has_shape


def imitation(student: Tensor, teacher: Tensor, near: Tensor) -> Tensor:
    """Half the squared distance of features near objects: (N, C, H, W), twice -> (N,).

    1 / (2 P) sum over the P places that are near, and over channels, of (student - teacher)^2; 0
    of a record without any. Per sample. Wang et al. 2019, arXiv:1906.03609.

    Args:
        student: features, adapted to the teacher's channels.
        teacher: features.
        near: bool (N, H, W).

    Raises:
        ValueError: the shapes do not match.
    """
    has_shape(tuple(student.shape), teacher=teacher)
    has_shape((student.shape[0], *student.shape[2:]), near=near)
    distance = (student - teacher).square().sum(dim=1)
    places = near.flatten(1).sum(dim=1).clamp(min=1)
    return (distance * near).flatten(1).sum(dim=1) / (2 * places)


def bounded(
    student: Tensor, teacher: Tensor, truth: Tensor, weights: Tensor, *, margin: float = 0.0
) -> Tensor:
    """Squared errors of shapes where they are worse than the teacher's: (N, *S, D) -> (N,).

    At a place the error |student - truth|^2 counts where with `margin` it is above the teacher's,
    and is 0 where the student is the better one; a mean by weights, per sample. Chen et al. 2017,
    NIPS, eq. 4.

    Args:
        student: numbers of each place.
        teacher: likewise.
        truth: likewise.
        weights: (N, *S), at least 0, how much a place counts.
        margin: at least 0.

    Raises:
        ValueError: the shapes do not match.
    """
    has_shape(tuple(student.shape), teacher=teacher, truth=truth)
    has_shape(tuple(student.shape[:-1]), weights=weights)
    ours, theirs = ((each - truth).square().sum(dim=-1) for each in (student, teacher))
    counted = weights * ours * (ours + margin > theirs)
    total = weights.flatten(1).sum(dim=1).clamp(min=1e-6)
    return counted.flatten(1).sum(dim=1) / total
