"""Forms of knowledge in how a batch's samples relate. All couple the samples of a batch."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from fedkd.knowledge import graph, relation, similarity
from fedkd.learning.forms import adapters
from fedkd.learning.forms.adapters import Shape
from fedkd.learning.forms.base import Compared, Form, Weighted, unadapted


class SP(Weighted):
    """Parameters of `sp`."""

    weight: float = Field(default=3000.0, gt=0)


class PKT(Weighted):
    """Parameters of `pkt`."""

    weight: float = Field(default=30000.0, gt=0)


class CC(Weighted):
    """Parameters of `cc`."""

    gamma: float = Field(default=0.4, gt=0)
    """The kernel's sharpness."""
    order: PositiveInt = 2
    """Of the kernel's polynomial."""


class RKD(Weighted):
    """Parameters of `rkd`."""

    distance: float = Field(default=25.0, ge=0)
    """Weight of distances."""
    angle: float = Field(default=50.0, ge=0)
    """Weight of angles."""


class Contrastive(Weighted):
    """Parameters of `crd`."""

    weight: float = Field(default=0.8, gt=0)
    temperature: float = Field(default=0.07, gt=0)
    """What cosines are divided by."""
    width: PositiveInt = 128
    """Of the embeddings that are compared."""


class Graph(Weighted):
    """Parameters of `graph`."""

    nodes: float = Field(default=1.0, ge=0)
    """Weight of the last layer's features, after a learned regressor."""
    edges: float = Field(default=1.0, ge=0)
    """Weight of each layer's edges."""
    transitions: float = Field(default=1.0, ge=0)
    """Weight of how edges change from layer to layer."""


def _sp(_params: SP, student: Sequence[Shape], teacher: Sequence[Shape], *_: Any) -> Compared:
    return unadapted(similarity.similarity, student, teacher)


def _pkt(_params: PKT, student: Sequence[Shape], teacher: Sequence[Shape], *_: Any) -> Compared:
    return unadapted(similarity.pkt, student, teacher)


def _cc(params: CC, student: Sequence[Shape], teacher: Sequence[Shape], *_: Any) -> Compared:
    loss = partial(similarity.congruence, gamma=params.gamma, order=params.order)
    return unadapted(loss, student, teacher)


def _rkd(params: RKD, student: Sequence[Shape], teacher: Sequence[Shape], *_: Any) -> Compared:
    def loss(ours: Tensor, theirs: Tensor) -> Tensor:
        total = ours.new_zeros(len(ours))
        if params.distance:
            total = total + params.distance * relation.distance(ours, theirs)
        if params.angle:
            total = total + params.angle * relation.angle(ours, theirs)
        return total

    return unadapted(loss, student, teacher)


def _graph(
    params: Graph, student: Sequence[Shape], teacher: Sequence[Shape], generator: torch.Generator
) -> Compared:
    regressor = adapters.regressor(student[-1], teacher[-1], generator)
    like_regressed = adapters.like_regressed(student[-1], teacher[-1])

    def loss(ours: Sequence[Tensor], theirs: Sequence[Tensor], _y: Tensor) -> Tensor:
        total = params.nodes * graph.nodes(regressor(ours[-1]), like_regressed(theirs[-1]))
        total = total + params.edges * graph.layers(ours, theirs).sum(dim=0)
        return total + params.transitions * graph.transitions(ours, theirs).sum(dim=0)

    return Compared(
        loss,
        nn.ModuleList(nn.Identity() for _ in student),
        nn.ModuleList(nn.Identity() for _ in teacher),
        beside=regressor,
    )


def _crd(
    params: Contrastive,
    student: Sequence[Shape],
    teacher: Sequence[Shape],
    generator: torch.Generator,
) -> Compared:
    ours, theirs = (
        nn.ModuleList(adapters.fit(shape, (params.width,), generator) for shape in side)
        for side in (student, teacher)
    )

    def loss(seen: Sequence[Tensor], told: Sequence[Tensor], y: Tensor) -> Tensor:
        others = None
        if y.dim() == 1 and not y.is_floating_point():  # of a class: the others' records
            others = y[:, None] != y
        embedded = [embed(each) for embed, each in zip(theirs, told, strict=True)]
        values = [
            similarity.contrastive(s, t, temperature=params.temperature, others=others)
            for s, t in zip(seen, embedded, strict=True)
        ]
        return torch.stack(values).sum(dim=0)

    unchanged = nn.ModuleList(nn.Identity() for _ in teacher)
    return Compared(loss, ours, unchanged, beside=theirs)


FORMS = {
    "crd": Form(
        "Tian et al. 2020, arXiv:1910.10699",
        "features",
        _crd,
        Contrastive,
        couples=True,
        joint=True,
    ),
    "sp": Form("Tung & Mori 2019, arXiv:1907.09682", "features", _sp, SP, couples=True),
    "pkt": Form("Passalis & Tefas 2018, arXiv:1803.10837", "features", _pkt, PKT, couples=True),
    "cc": Form("Peng et al. 2019, arXiv:1904.01802", "features", _cc, CC, couples=True),
    "rkd": Form("Park et al. 2019, arXiv:1904.05068", "features", _rkd, RKD, couples=True),
    "graph": Form(
        "Liu et al. 2019, CVPR, pp. 7096-7104", "named", _graph, Graph, least=2, couples=True
    ),
}
