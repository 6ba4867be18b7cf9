"""Knowledge in features, sample by sample: no loss here couples the samples of a batch.

Student and teacher may be unlike in width where a loss says so; where they are not allowed to be,
the caller brings a learned adapter (`regressor`) and trains it with the student.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge.checks import has_shape, same_batch, same_places, same_shape
from fedkd.knowledge.geometry import unit

VARIANCE_FLOOR = 1e-5


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the smaller height and the smaller width of the two, by average pooling.

    Maps (N, C, H, W) and (N, C', H', W') -> (N, C, h, w) and (N, C', h, w).

    Raises:
        ValueError: one is not of four dimensions, or the batches differ.
    """
    same_batch(student=student, teacher=teacher)
    if {student.dim(), teacher.dim()} != {4}:
        same_places(student=student, teacher=teacher)
    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    return F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)


def hint(student: Tensor, teacher: Tensor, *, regressor: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean squared distance of the regressed student's features from the teacher's, per sample.

    FitNets, Romero et al. 2015, arXiv:1412.6550, divided by the number of features instead of 2.

    Args:
        student: features (N, ...).
        teacher: features (N, ...), of any other width.
        regressor: maps the student's features to the teacher's shape.

    Returns:
        (N,), at least 0, and 0 where the regressed features are the teacher's.

    Raises:
        ValueError: the batches differ, or the regressor gives another shape than the teacher's.
    """
    same_batch(student=student, teacher=teacher)
    regressed = regressor(student)
    same_shape(regressed=regressed, teacher=teacher)
    return (regressed - teacher).square().flatten(1).mean(dim=1)


def angular(student: Tensor, teacher: Tensor) -> Tensor:
    """(1 - cos)^2 of the angle between the student's features and the teacher's, per sample.

    Duong et al. 2019 (ShrinkTeaNet), arXiv:1905.10620; of embeddings of faces also Yan et al. 2019
    (VarGFaceNet), arXiv:1910.04985.

    Args:
        student: features (N, ...).
        teacher: features of the same shape.

    Returns:
        (N,) in [0, 4]; blind to either side's scale; 0 where the directions are the same.

    Raises:
        ValueError: the shapes differ.
    """
    same_batch(student=student, teacher=teacher)
    same_shape(student=student, teacher=teacher)
    ours, theirs = (unit(each.flatten(1), dim=1) for each in (student, teacher))
    return (1 - (ours * theirs).sum(dim=1)).square()


def attention(student: Tensor, teacher: Tensor, *, power: float = 2.0) -> Tensor:
    """Mean squared distance of attention maps (AT), per sample: where does the model look?

    A map is mean_c |f_c|^power over channels, flattened, at length 1. Zagoruyko & Komodakis 2017,
    arXiv:1612.03928, divided by the number of places.

    Args:
        student: feature maps (N, C, H, W).
        teacher: feature maps (N, C', H, W): any width, the same size (see `same_size`).
        power: at least 1; the higher, the more the strongest channels count.

    Returns:
        (N,) in [0, 2 / (H W)]; blind to either side's scale; 0 where the maps agree.

    Raises:
        ValueError: one is not of four dimensions, N, H or W differ, or the power is below 1.
    """
    same_places(student=student, teacher=teacher)
    if not power >= 1:
        raise ValueError(f"expected power={power} >= 1")
    maps = [
        unit(each.abs().pow(power).mean(dim=1).flatten(1), dim=1) for each in (student, teacher)
    ]
    return (maps[0] - maps[1]).square().mean(dim=1)


def selectivity(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of the channels' maps (NST), per sample.

    Each channel is a vector over places at length 1, a model's channels are a sample of such
    vectors, and the kernel is k(a, b) = (a . b)^2. Huang & Wang 2017, arXiv:1707.01219.

    Args:
        student: feature maps (N, C, H, W).
        teacher: feature maps (N, C', H, W): any width, the same size (see `same_size`).

    Returns:
        (N,) in [0, 2]; blind to the order, the scale and the sign of either side's channels; 0
        where they agree.

    Raises:
        ValueError: one is not of four dimensions, or N, H or W differ.
    """
    same_places(student=student, teacher=teacher)
    s, t = unit(student.flatten(2), dim=2), unit(teacher.flatten(2), dim=2)
    return _kernel(s, s) + _kernel(t, t) - 2 * _kernel(s, t)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.transpose(1, 2)).square().mean(dim=(1, 2))


def hierarchical(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of maps, whole and pooled to 4x4, 2x2 and 1x1, per sample.

    The hierarchical context loss of ReviewKD, Chen et al. 2021, arXiv:2104.09044: a level has half
    the weight of the one before, all together 1; levels that are not smaller than the maps are left
    out. The fusion of layers before it is the caller's.

    Args:
        student: feature maps (N, C, H, W), fused.
        teacher: feature maps of the same shape.

    Returns:
        (N,), at least 0, and 0 where the maps agree.

    Raises:
        ValueError: the shapes differ, or are not of four dimensions.
    """
    same_shape(student=student, teacher=teacher)
    same_places(student=student, teacher=teacher)
    gap = student - teacher  # pooling is linear
    smaller = [size for size in (4, 2, 1) if size < min(gap.shape[2:])]
    levels = [gap, *(F.adaptive_avg_pool2d(gap, size) for size in smaller)]
    weights = [0.5**level for level in range(len(levels))]
    values = [w * v.square().flatten(1).mean(dim=1) for w, v in zip(weights, levels, strict=True)]
    return torch.stack(values).sum(dim=0) / sum(weights)


def factor(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute distance of factors at length 1 (FT), per sample.

    The factors are the outputs of the student's translator and the teacher's paraphraser, which the
    caller has. Kim et al. 2018, arXiv:1802.04977, divided by the number of features.

    Args:
        student: factors (N, ...).
        teacher: factors (N, ...), the same shape.

    Returns:
        (N,) in [0, 2 / sqrt(features)]; blind to either side's scale; 0 where directions agree.

    Raises:
        ValueError: the shapes differ, or there are no features.
    """
    same_shape(student=student, teacher=teacher)
    same_batch(student=student, teacher=teacher)
    return (unit(student.flatten(1), dim=1) - unit(teacher.flatten(1), dim=1)).abs().mean(dim=1)


def boundary(student: Tensor, teacher: Tensor, *, margin: float = 1.0) -> Tensor:
    """Squared hinge to the teacher's activation boundary (AB), summed over neurons, per sample.

    Where the teacher's neuron is on (above 0) max(0, margin - s)^2, else max(0, margin + s)^2.
    Gradients reach the student alone. Heo et al. 2019, arXiv:1811.03233. (RepDistiller's weight 1
    is for 0.003 times this, halved for each layer further from the last.)

    Args:
        student: pre-activations (N, ...).
        teacher: pre-activations (N, ...), the same shape.
        margin: m, at least 0.

    Returns:
        (N,), at least 0; 0 where every neuron has the teacher's sign by the margin, so not in
        general where both agree.

    Raises:
        ValueError: the shapes differ, there are no features, or the margin is negative.
    """
    same_shape(student=student, teacher=teacher)
    same_batch(student=student, teacher=teacher)
    if not margin >= 0:
        raise ValueError(f"expected margin={margin} >= 0")
    missing = torch.where(teacher > 0, margin - student, margin + student)
    return missing.clamp_min(0).square().flatten(1).sum(dim=1)


def vid(
    student: Tensor,
    teacher: Tensor,
    *,
    regressor: Callable[[Tensor], Tensor],
    raw_variance: Tensor,
) -> Tensor:
    """Mean of 0.5 [(t - mu)^2 / s^2 + log s^2] over features (VID), per sample.

    The negative log-likelihood of the teacher's features, without its constant, under a Gaussian
    mean mu = regressor(student) and a variance for each channel, s^2 = softplus(raw) + 1e-5. Ahn et
    al. 2019, arXiv:1904.05835.

    Args:
        student: features (N, ...).
        teacher: t (N, C, ...).
        regressor: maps the student's features to the teacher's shape.
        raw_variance: (C,), learned with the student; `raw_variance(channels, variance=5.0)`.

    Returns:
        (N,), of either sign; at its least in mu where the features agree.

    Raises:
        ValueError: the batches differ, the regressor gives another shape than the teacher's, or
            there is not one variance a channel.
    """
    same_batch(student=student, teacher=teacher)
    mean = regressor(student)
    same_shape(regressed=mean, teacher=teacher)
    has_shape((teacher.shape[1],), raw_variance=raw_variance)
    variance = F.softplus(raw_variance).add(VARIANCE_FLOOR).view(-1, *[1] * (mean.dim() - 2))
    likelihood = ((teacher - mean).square() / variance + variance.log()) / 2
    return likelihood.flatten(1).mean(dim=1)


def raw_variance(channels: int, *, variance: float = 5.0) -> Tensor:
    """Where `vid` starts: raw values (channels,) that stand for this variance, above 1e-5."""
    if not variance > VARIANCE_FLOOR:
        raise ValueError(f"expected variance={variance} > {VARIANCE_FLOOR}")
    aim = torch.full((channels,), variance - VARIANCE_FLOOR)
    return aim + torch.log(-torch.expm1(-aim))
