"""What each docstring says about samples: alone, or compared with the rest of the batch.

DP-SGD clips a gradient for each sample; a loss whose value i moves with sample j has none.
"""

from functools import partial

import pytest
import torch
from agreement import Loss, fresh
from torch import Tensor

from fedkd.knowledge import (
    dist,
    feature,
    graph,
    label,
    logits,
    parameter,
    relation,
    similarity,
    structure,
    transport,
)

N, C = 5, 4
GIVEN = torch.ones(N, N) - torch.eye(N)
RING = torch.tensor([[i, (i + 1) % N, (i + 2) % N] for i in range(N)])


def dkd(student: Tensor, teacher: Tensor) -> Tensor:
    return label.dkd(student, teacher, torch.arange(len(student)) % C, temperature=2.0)


def edges(student: Tensor, teacher: Tensor) -> Tensor:
    return graph.edges(graph.batch_edges(student), graph.batch_edges(teacher))


def layers(student: Tensor, teacher: Tensor) -> Tensor:
    return graph.layers([student, student.relu()], [teacher, teacher.tanh()]).sum(dim=0)


def transitions(student: Tensor, teacher: Tensor) -> Tensor:
    return graph.transitions([student, student.relu()], [teacher, teacher.tanh()])[0]


def neighbours(student: Tensor, teacher: Tensor) -> Tensor:
    return graph.neighbours(student, teacher, GIVEN[: len(student), : len(student)])


def on_a_ring(student: Tensor, teacher: Tensor) -> Tensor:
    tuples = RING[: len(student)] % len(student)
    return relation.relation(student, teacher, tuples, potential=relation.triplet_cosine)


def vid(student: Tensor, teacher: Tensor) -> Tensor:
    raw = feature.raw_variance(student.shape[1])
    return feature.vid(student, teacher, regressor=torch.tanh, raw_variance=raw)


def one_for_all(student: Tensor, teacher: Tensor) -> Tensor:
    return label.one_for_all(student, teacher, torch.arange(len(student)) % C)


def discrete(student: Tensor, teacher: Tensor) -> Tensor:
    costs = 1 - torch.eye(C).to(student)
    return transport.discrete(
        student, teacher, torch.arange(len(student)) % C, costs, temperature=2
    )


def adversarial(student: Tensor, teacher: Tensor) -> Tensor:
    warm = 3 * torch.ones(len(student)).to(student)
    return logits.adversarial_kd(student, teacher, warm, strength=1.0)


ALONE: list[tuple[Loss, tuple[int, ...]]] = [
    (partial(label.kd, temperature=2.0), (C,)),
    (partial(label.jsd, temperature=2.0), (C,)),
    (dkd, (C,)),
    (label.mae, (C,)),
    (partial(logits.standardised_kd, temperature=2.0), (C,)),
    (partial(logits.instance_level, temperatures=(2.0, 3.0)), (C,)),
    (adversarial, (C,)),
    (one_for_all, (C,)),
    (discrete, (C,)),
    (transport.gaussian, (3, 2, 2)),
    (feature.hierarchical, (3, 2, 2)),
    (label.soft_cross_entropy, (C,)),
    (dist.pearson_distance, (C,)),
    (dist.inter_class, (C,)),
    (partial(feature.hint, regressor=torch.tanh), (3, 2, 2)),
    (feature.angular, (6,)),
    (feature.attention, (3, 2, 2)),
    (feature.selectivity, (3, 2, 2)),
    (structure.pairwise, (3, 2, 2)),
    (structure.adapted, (3, 2, 2)),
    (feature.factor, (3, 2, 2)),
    (feature.boundary, (3, 2, 2)),
    (vid, (3, 2, 2)),
    (graph.nodes, (3, 2, 2)),
    (parameter.consistency, (C,)),
]
COUPLED: list[Loss] = [
    similarity.similarity,
    similarity.pkt,
    similarity.congruence,
    partial(similarity.neighbourhood, temperature=0.5),
    partial(similarity.contrastive, temperature=0.5),
    relation.distance,
    relation.angle,
    on_a_ring,
    edges,
    layers,
    transitions,
    neighbours,
]


@pytest.mark.parametrize(("loss", "shape"), ALONE)
def test_a_sample_s_value_is_what_it_is_alone_and_so_is_its_gradient(
    loss: Loss, shape: tuple[int, ...]
) -> None:
    student, teacher = fresh([(N, *shape), (N, *shape)], 4)
    value = loss(student, teacher)
    assert value.shape == (N,)
    assert torch.autograd.grad(value.sum(), student, retain_graph=True)[0].abs().sum() > 0
    # dkd's classes count from 0, so a prefix of the batch keeps each sample's class
    torch.testing.assert_close(loss(student[:2], teacher[:2]), value[:2])
    (slope,) = torch.autograd.grad(value[1], student)
    assert slope[1].abs().sum() > 0
    assert slope[[0, 2, 3, 4]].abs().sum() == 0


@pytest.mark.parametrize("loss", COUPLED)
def test_a_sample_s_value_moves_with_another_s_features(loss: Loss) -> None:
    student, teacher = fresh([(N, 6), (N, 6)], 4)
    value = loss(student, teacher)
    assert value.shape == (N,)
    (slope,) = torch.autograd.grad(value[1], student)
    assert slope[2].abs().sum() > 0


@pytest.mark.parametrize(
    "loss",
    [
        dist.intra_class,
        partial(logits.batch_level, temperature=1.0),
        partial(logits.class_level, temperature=1.0),
    ],
)
def test_terms_of_classes_and_of_batches_couple_samples(loss: Loss) -> None:
    student, teacher = fresh([(N, C), (N, C)], 4)
    (slope,) = torch.autograd.grad(loss(student, teacher)[0], student)
    assert (slope.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("loss", [*COUPLED, *(loss for loss, shape in ALONE if len(shape) == 3)])
@pytest.mark.parametrize("degenerate", ["equal samples", "all zero", "one sample"])
def test_degenerate_batches_give_finite_values_and_moderate_gradients(
    loss: Loss, degenerate: str
) -> None:
    student, teacher = (each.detach() for each in fresh([(N, 3, 2, 2)] * 2, 4, torch.float32))
    if degenerate == "equal samples":
        student[1:3] = student[0]
    elif degenerate == "all zero":
        student[:] = 0
    else:
        student, teacher = student[:1], teacher[:1]
    student.requires_grad_()
    value = loss(student, teacher)
    (slope,) = torch.autograd.grad(value.sum(), student)
    assert value.isfinite().all()
    assert slope.abs().max() < 100
