"""Knowledge in graphs: samples are nodes, edges say how they relate; built from features or given.

Built from a batch's features, layer by layer: the instance relationship graph, Liu et al. 2019,
CVPR, pp. 7096-7104 (no arXiv): nodes, edges, and how edges change from layer to layer. Given by the
user (citations, molecules, neighbours): `neighbours`, Yang et al. 2020, arXiv:2003.10477. All but
`nodes` couple the samples of a batch.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from fedkd.knowledge.checks import has_shape, same_batch, same_shape
from fedkd.knowledge.geometry import by_mean, distances


def batch_edges(features: Tensor) -> Tensor:
    """The complete graph of a batch: squared distances in units of their mean above 0.

    The unit, which the paper leaves out, makes layers of unlike widths comparable. Couples the
    samples of a batch.

    Args:
        features: (N, ...).

    Returns:
        (N, N), symmetric, at least 0, with 0 on the diagonal; blind to the features' shift,
        rotation and scale.

    Raises:
        ValueError: there are no features.
    """
    same_batch(features=features)
    return by_mean(distances(features).square())


def nodes(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of a node's features, per sample.

    Args:
        student: features (N, ...), adapted by the caller if widths are unlike.
        teacher: features (N, ...), the same shape.

    Returns:
        (N,), at least 0; 0 where the features agree.

    Raises:
        ValueError: the shapes differ, or there are no features.
    """
    same_shape(student=student, teacher=teacher)
    same_batch(student=student, teacher=teacher)
    return (student - teacher).square().flatten(1).mean(dim=1)


def edges(student: Tensor, teacher: Tensor, *, graph: Tensor | None = None) -> Tensor:
    """Mean squared distance of a node's edges, weighted by a given graph. Couples samples.

    Args:
        student: edges (N, N), such as `batch_edges(features)`.
        teacher: edges (N, N).
        graph: weights (N, N), at least 0: row i says how much each edge of node i counts. Without
            one, all N count alike, the edge to itself too.

    Returns:
        (N,), at least 0; the mean over i is the term. 0 where the edges agree, and for a node
        without edges.

    Raises:
        ValueError: the shapes differ, or are not (N, N).
    """
    has_shape((len(student), len(student)), student=student, teacher=teacher)
    gap = (student - teacher).square()
    if graph is None:
        return gap.mean(dim=1)
    has_shape((len(student), len(student)), graph=graph)
    total = graph.sum(dim=1)
    return (graph * gap).sum(dim=1) / torch.where(total > 0, total, 1.0)


def layers(
    student: Sequence[Tensor], teacher: Sequence[Tensor], *, graph: Tensor | None = None
) -> Tensor:
    """Edge terms of the graphs built in several layers. Couples the samples of a batch.

    Args:
        student: for each layer, features (N, ...).
        teacher: for as many layers, features (N, ...) of any shape.
        graph: see `edges`.

    Returns:
        (layers, N), at least 0; 0 where features agree up to shift, rotation and scale.

    Raises:
        ValueError: there is no layer, the lists are unlike in length, or the batches differ.
    """
    built = _built(student, teacher, least=1)
    return torch.stack([edges(s, t, graph=graph) for s, t in zip(*built, strict=True)])


def transitions(
    student: Sequence[Tensor], teacher: Sequence[Tensor], *, graph: Tensor | None = None
) -> Tensor:
    """Edge terms of how the graphs change from each layer to the next. Couples samples.

    Args:
        student: for each of at least 2 layers, features (N, ...).
        teacher: for as many layers, features (N, ...) of any shape.
        graph: see `edges`.

    Returns:
        (layers - 1, N), at least 0; 0 where the changes agree, even if the graphs do not.

    Raises:
        ValueError: there are fewer than 2 layers, the lists are unlike in length, or the batches
            differ.
    """
    changes = [
        [after - before for before, after in pairwise(model)]
        for model in _built(student, teacher, least=2)
    ]
    return torch.stack([edges(s, t, graph=graph) for s, t in zip(*changes, strict=True)])


def neighbours(student: Tensor, teacher: Tensor, graph: Tensor) -> Tensor:
    """KL(student || teacher) in nats of who among a node's neighbours is near it (LSP).

    Each side is the softmax over neighbours j of -|x_i - x_j|^2 / 2, in units of the mean squared
    distance above 0 (the paper's Gaussian kernel, with its width from the data). Couples samples.

    Args:
        student: features (N, ...).
        teacher: features (N, ...), of any shape.
        graph: (N, N), boolean or weights: j is a neighbour of i where [i, j] is not 0.

    Returns:
        (N,), at least 0; the mean over i is the loss. Blind to either side's shift, rotation and
        scale; 0 where the features agree, and for a node with fewer than 2 neighbours.

    Raises:
        ValueError: the batches differ, there are no features, or the graph is not (N, N).
    """
    same_batch(student=student, teacher=teacher)
    has_shape((len(student), len(student)), graph=graph)
    linked = graph != 0
    log_s, log_t = (_log_near(batch_edges(each), linked) for each in (student, teacher))
    return (log_s.exp() * (log_s - log_t)).sum(dim=1)


def _log_near(squared: Tensor, linked: Tensor) -> Tensor:
    """Log-softmax over linked columns; elsewhere a finite number, so that no gradient is NaN."""
    lowest = torch.finfo(squared.dtype).min / 4
    return (-squared / 2).masked_fill(~linked, lowest).log_softmax(dim=1)


def _built(
    student: Sequence[Tensor], teacher: Sequence[Tensor], *, least: int
) -> tuple[list[Tensor], list[Tensor]]:
    if len(student) != len(teacher) or len(student) < least:
        raise ValueError(
            f"{len(student)} layers of the student, {len(teacher)} of the teacher: "
            f"expected as many, at least {least}"
        )
    for name, model in (("student", student), ("teacher", teacher)):
        for layer, each in enumerate(model):
            same_batch(**{"student_0": student[0], f"{name}_{layer}": each})
    return [batch_edges(each) for each in student], [batch_edges(each) for each in teacher]
