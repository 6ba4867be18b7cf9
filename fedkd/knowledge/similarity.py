"""Knowledge in how alike a batch's samples are. Every loss here couples the samples of a batch.

Value i of (N,) compares sample i with the whole batch, and the mean over i is the paper's loss.
Features of student and teacher may be of unlike shapes: only N must be the same.
"""

import math

import torch
from torch import Tensor

from fedkd.knowledge.checks import has_shape, positive, same_batch, same_shape
from fedkd.knowledge.geometry import cosines, unit

KERNEL_FLOOR = 1e-7


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of row-normalised Gram matrices, summed over row i, divided by N (SP).

    G = Q Q^T with features Q (N, D), each row of G at length 1. Tung & Mori 2019, arXiv:1907.09682:
    ||G_s - G_t||^2 / N^2.

    Args:
        student: features (N, ...).
        teacher: features (N, ...), of any shape.

    Returns:
        (N,) in [0, 4 / N]; blind to either side's scale and orthogonal transforms; 0 where the
        features agree. Couples the samples of a batch.

    Raises:
        ValueError: the batches differ, or there are no features.
    """
    same_batch(student=student, teacher=teacher)
    grams = []
    for each in (student, teacher):
        rows = each.flatten(1)
        grams.append(unit(rows @ rows.T, dim=1))
    return (grams[0] - grams[1]).square().mean(dim=1)


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) in nats of who is near whom, divided by N (PKT).

    p_ij = K_ij / sum_j K_ij with K_ij = (cos(x_i, x_j) + 1) / 2, at least 1e-7 so that opposite
    samples have a logarithm; j = i counts, as in the authors' code. Passalis & Tefas 2018,
    arXiv:1803.10837: mean over i and j of t_ij log(t_ij / s_ij).

    Args:
        student: features (N, ...).
        teacher: features (N, ...), of any shape.

    Returns:
        (N,), at least 0; blind to a rotation of either side's features and to each sample's scale;
        0 where the features agree. Couples the samples of a batch.

    Raises:
        ValueError: the batches differ, or there are no features.
    """
    same_batch(student=student, teacher=teacher)
    log_s, log_t = (
        (kernel := ((cosines(each) + 1) / 2).clamp_min(KERNEL_FLOOR)).log()
        - kernel.sum(dim=1, keepdim=True).log()
        for each in (student, teacher)
    )
    return (log_t.exp() * (log_t - log_s)).mean(dim=1)


def neighbourhood(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """KL(teacher || student) in nats of whom among the others a sample is like.

    p_ij is the softmax over j != i of cos(x_i, x_j) / temperature: what a contrastive loss learns,
    with the teacher's own for the target. Fang et al. 2021 (SEED), arXiv:2101.04731, with the batch
    in place of a queue.

    Args:
        student: features (N, ...).
        teacher: features (N, ...), of any shape.
        temperature: > 0.

    Returns:
        (N,), at least 0; blind to a rotation of either side's features and to each sample's scale;
        0 where the features agree, and for 2 samples or fewer. Couples the samples of a batch.

    Raises:
        ValueError: the batches differ, there are no features, or the temperature is not positive.
    """
    same_batch(student=student, teacher=teacher)
    positive(temperature=temperature)
    log_s, log_t = (_log_others(cosines(each) / temperature) for each in (student, teacher))
    return (log_t.exp() * (log_t - log_s)).sum(dim=1)


def _log_others(alike: Tensor) -> Tensor:
    """Log-softmax of rows (N, N) without the diagonal; there a finite number, lest NaN comes."""
    itself = torch.eye(len(alike), dtype=torch.bool, device=alike.device)
    return alike.masked_fill(itself, torch.finfo(alike.dtype).min / 4).log_softmax(dim=1)


def contrastive(
    student: Tensor, teacher: Tensor, *, temperature: float, others: Tensor | None = None
) -> Tensor:
    """How well a sample's two embeddings are told from those of unlike samples (CRD), in nats.

    -log h_ii - sum over i's negatives j of log(1 - h_ij), once with the student's embedding as
    anchor and once with the teacher's; h_ij = e_ij / (e_ij + K_i Z), e_ij = exp(s_i . t_j / tau) of
    embeddings at length 1, K_i negatives. Tian et al. 2020, arXiv:1910.10699. Negatives are of the
    batch and have gradients, where the paper draws 16384 from a memory of past embeddings; Z, the
    mean of e over all negatives, is a constant here as in the authors' code, which takes that of
    the first batch with its positives. So it wants large batches. Couples the samples of a batch.

    Args:
        student: embeddings (N, D).
        teacher: embeddings (N, D).
        temperature: tau > 0; 0.07 in the paper.
        others: bool (N, N), symmetric: which samples are negatives of which, such as those of other
            classes; the diagonal does not count. None: all others.

    Returns:
        (N,), at least 0; blind to each embedding's length; 0 where a sample has no negatives.

    Raises:
        ValueError: the shapes do not fit, or the temperature is not positive.
    """
    same_shape(student=student, teacher=teacher)
    same_batch(student=student, teacher=teacher)
    positive(temperature=temperature)
    count = len(student)
    itself = torch.eye(count, dtype=torch.bool, device=student.device)
    if others is None:
        others = ~itself
    has_shape((count, count), others=others)
    negative = others & ~itself
    scores = unit(student.flatten(1), dim=1) @ unit(teacher.flatten(1), dim=1).T / temperature
    counts = negative.sum(dim=1, keepdim=True).to(scores)
    mean = scores.detach()[negative].logsumexp(dim=0) - counts.sum().clamp(min=1).log()
    values = scores.new_zeros(count)
    for anchored in (scores, scores.T):
        noise = counts.log() + mean
        both = torch.logaddexp(anchored, noise)
        right = (anchored - both).diagonal()
        wrong = torch.where(negative, noise - both, 0.0).sum(dim=1)
        values = values - right - wrong
    return values


def congruence(student: Tensor, teacher: Tensor, *, gamma: float = 0.4, order: int = 2) -> Tensor:
    """Squared distance of Gaussian kernel matrices, summed over row i, divided by N (CC).

    K_ij = exp(-gamma |x_i - x_j|^2) of features at length 1, as its Taylor polynomial
    exp(-2 gamma) sum_{p <= order} (2 gamma x_i . x_j)^p / p!. Peng et al. 2019, arXiv:1904.01802:
    ||K_s - K_t||^2 / N^2, with gamma 0.4 and order 2. (RepDistiller's "correlation", to which its
    weight 0.02 belongs, is another formula that depends on the batch's order.)

    Args:
        student: features (N, ...).
        teacher: features (N, ...), of any shape.
        gamma: > 0, the kernel's sharpness.
        order: of the polynomial, at least 1.

    Returns:
        (N,), at least 0; blind to a rotation of either side's features and to each sample's scale;
        0 where the features agree. Couples the samples of a batch.

    Raises:
        ValueError: the batches differ, there are no features, gamma is not positive or the order
            is below 1.
    """
    same_batch(student=student, teacher=teacher)
    positive(gamma=gamma, order=order)
    gap = _polynomial(student, gamma, order) - _polynomial(teacher, gamma, order)
    return gap.square().mean(dim=1)


def _polynomial(features: Tensor, gamma: float, order: int) -> Tensor:
    exponent = 2 * gamma * cosines(features)
    terms = [exponent**p / math.factorial(p) for p in range(order + 1)]
    return math.exp(-2 * gamma) * torch.stack(terms).sum(dim=0)
