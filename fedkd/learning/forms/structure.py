"""Forms of knowledge in how the places of one image relate; none couples the samples of a batch."""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from fedkd.knowledge import structure
from fedkd.learning.forms.adapters import Shape, common_size, pooled
from fedkd.learning.forms.base import Compared, Form, Weighted, pairs
from fedkd.learning.forms.feature import Factor, translated


class PairWise(Weighted):
    """Parameters of `pairwise`."""

    grid: PositiveInt = 8
    """Places along each axis, at most, to which maps are pooled before pairs are made."""


class Affinity(Factor):
    """Parameters of `affinity`."""

    weight: float = Field(default=1.0, gt=0)
    """Of the two together; none is published for these units."""
    gamma: float = Field(default=1.0, ge=0)
    """Weight of affinity beside that of translated features."""
    grid: PositiveInt = 8
    """As in `pairwise`."""


def _at_most(shape: tuple[int, int], grid: int) -> nn.Module:
    """To at most `grid` places along each axis, by average pooling."""
    return pooled((min(grid, shape[0]), min(grid, shape[1])))


def _pairwise(
    params: PairWise, student: Sequence[Shape], teacher: Sequence[Shape], *_: Any
) -> Compared:
    sizes = [common_size(s, t) for s, t in zip(student, teacher, strict=True)]
    ours, theirs = ([_at_most(size, params.grid) for size in sizes] for _ in range(2))
    return pairs(structure.pairwise, ours, theirs)


def _affinity(
    params: Affinity,
    student: Sequence[Shape],
    teacher: Sequence[Shape],
    generator: torch.Generator,
) -> Compared:
    def loss(ours: Tensor, theirs: Tensor) -> Tensor:
        pool = _at_most((ours.shape[2], ours.shape[3]), params.grid)
        affinity = structure.pairwise(pool(ours), pool(theirs))
        return structure.adapted(ours, theirs) + params.gamma * affinity

    return translated(loss, params, student, teacher, generator)


FORMS = {
    "pairwise": Form("Liu et al. 2019, arXiv:1903.04197", "maps", _pairwise, PairWise),
    "affinity": Form("He et al. 2019, CVPR, pp. 578-587", "maps", _affinity, Affinity, first=True),
}
