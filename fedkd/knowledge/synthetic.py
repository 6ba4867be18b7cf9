"""Knowledge in synthetic data: what makes a generated batch worth learning from.

Chen et al. 2019, DAFL, arXiv:1904.01186; Yin et al. 2020, DeepInversion, arXiv:1912.08795; Zhang et
al. 2022, DENSE, arXiv:2112.12371; Dai et al. 2024, Co-Boosting, arXiv:2402.15070; Zhu et al. 2021,
FedGen, arXiv:2105.10056.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge.checks import has_shape, same_batch, same_shape
from fedkd.knowledge.label import jsd, kd


def one_hot(teacher: Tensor) -> Tensor:
    """Cross-entropy of the teacher with its own prediction in nats, per sample (DAFL).

    Logits (N, C) -> (N,), at least 0; small where the teacher is sure.
    """
    return F.cross_entropy(teacher, teacher.argmax(dim=-1), reduction="none")


def activation(features: Tensor) -> Tensor:
    """Minus the mean absolute feature, per sample (DAFL): real data excites a teacher's features.

    The L1 norm of the paper is divided by the number of features, so that a weight means the same
    for teachers of any width. Features (N, ...) -> (N,), at most 0.
    """
    return -features.flatten(1).abs().mean(dim=1)


def information_entropy(teacher: Tensor) -> Tensor:
    """Minus the entropy of the batch's mean prediction in nats (DAFL): classes should be balanced.

    Logits (N, C) -> scalar in [-log C, 0].
    """
    log_mean = F.log_softmax(teacher, dim=-1).logsumexp(dim=0) - math.log(len(teacher))
    return (log_mean.exp() * log_mean).sum()


def bn_statistics(
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    running_means: Sequence[Tensor],
    running_variances: Sequence[Tensor],
) -> Tensor:
    """Distance of a batch's statistics from those stored in BatchNorm layers (DeepInversion).

    Sum over layers of ||mean - running mean||_2 + ||variance - running variance||_2.

    Args:
        means: for each layer, the batch's mean of every channel, (channels,).
        variances: likewise the variance, divided by the number of values (no Bessel correction).
        running_means: what the layers store.
        running_variances: what the layers store.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: there is no layer, or the lists or the shapes in them do not match.
    """
    lists = (means, variances, running_means, running_variances)
    if not means or len({len(each) for each in lists}) > 1:
        lengths = ", ".join(str(len(each)) for each in lists)
        raise ValueError(f"statistics of {lengths} layers: expected as many of each, at least 1")
    distances = []
    for mean, variance, running_mean, running_variance in zip(*lists, strict=True):
        same_shape(mean=mean, running_mean=running_mean)
        same_shape(variance=variance, running_variance=running_variance)
        distances.append(torch.linalg.vector_norm(mean - running_mean))
        distances.append(torch.linalg.vector_norm(variance - running_variance))
    return torch.stack(distances).sum()


def total_variation(x: Tensor) -> Tensor:
    """Sum of the L2 norms of neighbours' differences in four directions, per image (DeepInversion).

    The directions are horizontal, vertical and both diagonals. Images (N, C, H, W) -> (N,).
    """
    differences = (
        x[..., :, :-1] - x[..., :, 1:],
        x[..., :-1, :] - x[..., 1:, :],
        x[..., :-1, :-1] - x[..., 1:, 1:],
        x[..., 1:, :-1] - x[..., :-1, 1:],
    )
    norms = [torch.linalg.vector_norm(each.flatten(1), dim=1) for each in differences]
    return torch.stack(norms).sum(dim=0)


def l2(x: Tensor) -> Tensor:
    """L2 norm of each input (DeepInversion). Inputs (N, ...) -> (N,)."""
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norms


def competition(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - JS(student, teacher), per sample, with the Jensen-Shannon divergence in nats (ADI).

    Small where student and teacher disagree. Logits (N, C) twice -> (N,) in [1 - log 2, 1].

    Raises:
        ValueError: the shapes differ.
    """
    return 1 - jsd(student, teacher, temperature=1.0)


def disagreement(student: Tensor, teacher: Tensor) -> Tensor:
    """-KL(teacher || student) in nats where their predicted classes differ, else 0 (DENSE).

    Its minimum draws samples to where the student's decision boundary is wrong. Gradients reach
    both. Logits (N, C) twice -> (N,), at most 0.

    Raises:
        ValueError: the shapes differ.
    """
    divergence = kd(student, teacher, temperature=1.0)
    differ = student.argmax(dim=-1) != teacher.argmax(dim=-1)
    return torch.where(differ, -divergence, 0.0)


def hard_cross_entropy(teacher: Tensor, y: Tensor) -> Tensor:
    """(1 - p_y) * cross-entropy in nats, per sample: what is hard counts more (Co-Boosting).

    The weight 1 - p_y is a constant: no gradient goes through it.

    Args:
        teacher: logits (N, C).
        y: the labels that were aimed at, integers (N,).

    Returns:
        (N,), at least 0.

    Raises:
        ValueError: the shapes do not match.
    """
    has_shape((len(teacher),), y=y)
    value = F.cross_entropy(teacher, y, reduction="none")
    return (1 - (-value.detach()).exp()) * value


def diversity(z: Tensor, x: Tensor) -> Tensor:
    """exp(-mean over pairs of d(z_i, z_j) d(x_i, x_j)): unlike noise should give unlike samples.

    d is the mean squared difference of latent vectors and the mean absolute difference of samples;
    pairs are all N^2, each with itself too (FedGen, and FedFTG, Zhang et al. 2022,
    arXiv:2203.09249).

    Args:
        z: latent vectors (N, L).
        x: what was made of them (N, ...).

    Returns:
        A scalar in (0, 1].

    Raises:
        ValueError: the numbers of samples differ.
    """
    same_batch(z=z, x=x)
    flat = x.flatten(1)
    apart = (flat[:, None] - flat).abs().mean(dim=2)
    return (-(z[:, None] - z).square().mean(dim=2) * apart).mean().exp()
