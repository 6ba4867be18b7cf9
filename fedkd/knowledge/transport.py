"""Knowledge by what it costs to turn one distribution into another: WKD, Lv et al. 2024.

arXiv:2412.08139. A Kullback-Leibler divergence compares class by class; a Wasserstein distance
knows that to take a cat for a dog is a smaller fault than to take it for a lorry.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.knowledge.checks import has_shape, listed, positive, same_batch
from fedkd.knowledge.geometry import cosines
from fedkd.knowledge.places import counted, log_probabilities, target_column, zeroed

_VARIANCE = 1e-5  # the published code's, under the square root


def class_costs(prototypes: Tensor, *, sharpness: float = 1.0) -> Tensor:
    """What it costs to move probability from a class to another, by how alike they are.

    1 - exp(-sharpness (1 - cos)) of prototypes such as the rows of a classifier's weights, which
    the authors' code has beside the paper's own choice, centred kernel alignment (CKA) of the
    teacher's features of all training records, class against class.

    Args:
        prototypes: (C, D).
        sharpness: > 0; the higher, the more are all classes but the nearest equally far.

    Returns:
        (C, C), symmetric, in [0, 1), 0 on the diagonal.

    Raises:
        ValueError: there are not two axes, or the sharpness is not positive.
    """
    positive(sharpness=sharpness)
    if prototypes.dim() != 2:
        raise ValueError(f"prototypes {tuple(prototypes.shape)}: expected (C, D)")
    apart = (1 - cosines(prototypes)).clamp_min(0.0).fill_diagonal_(0.0)
    return -torch.expm1(-sharpness * apart)


def discrete(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    costs: Tensor,
    *,
    temperature: float,
    gamma: float = 1.0,
    regularisation: float = 0.05,
    iterations: int = 10,
    where: Tensor | None = None,
) -> Tensor:
    """-p_y log q_y + gamma * the Wasserstein distance of all other classes (WKD-L), per place.

    p and q are the teacher's and the student's probabilities at temperature 1; in the distance, of
    the other classes alone at T. It is Sinkhorn's, Cuturi 2013, arXiv:1306.0895: the cost of the
    plan after `iterations`, of which each makes first the teacher's sums right, then the student's.
    In logarithms, so that no exponent underflows. Takes C^2 numbers a place and iteration.

    Args:
        student: logits (..., C), C at least 2.
        teacher: logits (..., C).
        target: the true classes, integers (...), in [0, C) where they count.
        costs: (C, C), at least 0, such as `class_costs`.
        temperature: T > 0.
        gamma: at least 0, the weight of the distance.
        regularisation: > 0, the weight of the plan's entropy; near 0 the distance is exact, and
            takes more iterations.
        iterations: at least 1.
        where: bool (...), which places count; None: all.

    Returns:
        (...), at least 0; not 0 where both agree, as the target's part and the entropy are not.

    Raises:
        ValueError: the shapes do not fit, there is one class, or a number is out of range.
    """
    student, teacher = counted(where, student=student, teacher=teacher)
    positive(temperature=temperature, regularisation=regularisation, iterations=iterations)
    classes = student.shape[-1]
    if classes < 2:
        raise ValueError(f"student {tuple(student.shape)}: expected (..., C) with C at least 2")
    if not gamma >= 0:
        raise ValueError(f"expected gamma={gamma} >= 0")
    has_shape((classes, classes), costs=costs)
    column = target_column(student, target, where)
    log_q, log_p = (log_probabilities(each, 1.0).gather(-1, column) for each in (student, teacher))
    taught = -(log_p.exp() * log_q).squeeze(-1)
    # A class without mass takes no part: no smaller matrix has to be cut out for each place.
    itself = torch.arange(classes, device=column.device) == column
    ours, theirs = (
        F.log_softmax(each.masked_fill(itself, -math.inf) / temperature, dim=-1)
        for each in (student, teacher)
    )
    log_kernel = -costs / regularisation
    log_u = torch.zeros_like(ours).masked_fill(itself, -math.inf)
    log_v = log_u
    for _ in range(iterations):
        log_v = theirs - torch.logsumexp(log_kernel + log_u[..., :, None], dim=-2)
        log_u = ours - torch.logsumexp(log_kernel + log_v[..., None, :], dim=-1)
    plan = (log_u[..., :, None] + log_kernel + log_v[..., None, :]).exp()
    return zeroed(taught + gamma * (plan * costs).sum(dim=(-2, -1)), where)


def gaussian(student: Tensor, teacher: Tensor, *, ratio: float = 2.0, grid: int = 1) -> Tensor:
    """Squared distance of channels taken for Gaussians over places (WKD-F), per sample.

    ratio * |mean gap|^2 + |deviation gap|^2, the mean over the cells of a grid, of which each has
    a Gaussian of its own; with ratio 1 the squared 2-Wasserstein distance of diagonal covariances.
    Deviations are those of maximum likelihood, sqrt(var + 1e-5).

    Args:
        student: feature maps (N, C, H, W).
        teacher: feature maps (N, C, H', W').
        ratio: at least 0, the weight of means.
        grid: cells along each axis, from 1 to the smallest of all heights and widths; as in
            adaptive pooling they overlap where they do not divide it.

    Returns:
        (N,), at least 0; blind to the order of places in a cell; 0 where both agree.

    Raises:
        ValueError: one is not of four dimensions, N or C differ, or a number is out of range.
    """
    same_batch(student=student, teacher=teacher)
    both = {"student": student, "teacher": teacher}
    if {each.dim() for each in both.values()} != {4} or student.shape[1] != teacher.shape[1]:
        raise ValueError(f"expected maps (N, C, H, W) of one C: found {listed(both)}")
    smallest = min(size for each in both.values() for size in each.shape[2:])
    if not 1 <= grid <= smallest:
        raise ValueError(f"expected grid={grid} in [1, {smallest}]")
    if not ratio >= 0:
        raise ValueError(f"expected ratio={ratio} >= 0")
    (mean_s, std_s), (mean_t, std_t) = (_moments(each, grid) for each in (student, teacher))
    values = ratio * (mean_s - mean_t).square() + (std_s - std_t).square()
    return values.sum(dim=1).mean(dim=1)


def _moments(maps: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Means and deviations (N, C, grid^2) over the places of each cell."""
    rows, columns = (
        [(n * size // grid, -(-(n + 1) * size // grid)) for n in range(grid)]
        for size in maps.shape[2:]
    )
    cells = [maps[:, :, a:b, c:d].flatten(2) for a, b in rows for c, d in columns]
    means = torch.stack([cell.mean(dim=2) for cell in cells], dim=2)
    variances = torch.stack([cell.var(dim=2, correction=0) for cell in cells], dim=2)
    return means, (variances + _VARIANCE).sqrt()
