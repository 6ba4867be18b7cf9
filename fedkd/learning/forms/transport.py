"""Forms of knowledge by Wasserstein distances: of answers, and of maps as Gaussians."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from fedkd.errors import ConfigError
from fedkd.knowledge import transport as losses
from fedkd.learning.forms.adapters import Shape, common_size
from fedkd.learning.forms.base import Compared, Form, Weighted
from fedkd.learning.forms.feature import regressed
from fedkd.learning.forms.label import OF_CLASSES, by_record


class DiscreteTransport(Weighted):
    """Parameters of `wkd-l`."""

    temperature: float = Field(default=4.0, gt=0)
    """What logits of other classes than the true one are divided by."""
    gamma: float = Field(default=10.0, ge=0)
    """Weight of the distance beside the true class's cross-entropy."""
    sharpness: float = Field(default=1.0, gt=0)
    """How soon unlike classes are as far as can be."""
    regularisation: float = Field(default=0.05, gt=0)
    """Weight of the entropy of what is moved."""
    iterations: PositiveInt = 10
    """Of Sinkhorn's algorithm."""


class GaussianTransport(Weighted):
    """Parameters of `wkd-f`."""

    ratio: float = Field(default=2.0, ge=0)
    """Weight of means beside deviations."""
    grid: PositiveInt = 1
    """Cells along each axis of the maps."""


def _discrete(
    params: DiscreteTransport,
    student: Sequence[Shape],
    *_: Any,
    prototypes: Tensor | None,
) -> Compared:
    """Classes are as far apart as their weights in the teacher's last layer."""
    classes = student[0][-1]
    if prototypes is None or len(prototypes) != classes:
        found = "none" if prototypes is None else f"one of {len(prototypes)} outputs"
        raise ConfigError(
            f"'wkd-l' measures how alike {classes} classes are by the teacher's last linear layer, "
            f"and found {found}: choose a teacher that ends in one, or another form"
        )
    costs = losses.class_costs(prototypes, sharpness=params.sharpness)
    how = params.model_dump(exclude={"weight", "sharpness"})

    def loss(ours: Tensor, theirs: Tensor, y: Tensor, *, where: Tensor | None) -> Tensor:
        return losses.discrete(ours, theirs, y, costs.to(ours), where=where, **how)

    return by_record(loss)


def _gaussian(
    params: GaussianTransport,
    student: Sequence[Shape],
    teacher: Sequence[Shape],
    generator: torch.Generator,
) -> Compared:
    smallest = min(
        (min(common_size(s, t)) for s, t in zip(student, teacher, strict=True)), default=math.inf
    )
    if params.grid > smallest:
        raise ConfigError(
            f"'wkd-f' divides maps by grid = {params.grid}: expected at most {smallest}, the size "
            "of the smallest map"
        )

    def loss(ours: Tensor, theirs: Tensor) -> Tensor:
        return losses.gaussian(ours, theirs, ratio=params.ratio, grid=params.grid)

    return regressed(loss, student, teacher, generator)


FORMS = {
    "wkd-l": Form(
        "Lv et al. 2024, arXiv:2412.08139",
        "answers",
        _discrete,
        DiscreteTransport,
        asks=OF_CLASSES,
        of_head=True,
    ),
    "wkd-f": Form("Lv et al. 2024, arXiv:2412.08139", "maps", _gaussian, GaussianTransport),
}
