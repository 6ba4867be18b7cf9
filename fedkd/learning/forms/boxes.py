"""Forms of knowledge for detectors, whose targets are boxes."""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from fedkd.errors import ConfigError
from fedkd.knowledge import boxes as losses
from fedkd.learning.forms import adapters
from fedkd.learning.forms.adapters import Shape
from fedkd.learning.forms.base import Compared, Form, Weighted, logits
from fedkd.tasks import Task
from fedkd.tasks.boxes import grid
from fedkd.tasks.boxes.grid import SHAPE


class Imitation(Weighted):
    """Parameters of `imitation`."""

    weight: float = Field(default=0.01, gt=0)
    share: float = Field(default=0.5, gt=0, lt=1)
    """A place is near an object where a box of its shape overlaps it by this share of the most."""
    stride: PositiveInt = 4
    """Pixels of an image between two places of the maps that are compared."""


class BoundedShapes(Weighted):
    """Parameters of `bounded-shapes`."""

    weight: float = Field(default=0.5, gt=0)
    margin: float = Field(default=0.0, ge=0)
    """By how much a student must be better than its teacher to be left alone."""
    stride: PositiveInt = 4
    """Must be `task.stride`."""


def _imitation(
    params: Imitation,
    student: Sequence[Shape],
    teacher: Sequence[Shape],
    generator: torch.Generator,
) -> Compared:
    both = list(zip(student, teacher, strict=True))

    def compare(ours: Sequence[Tensor], theirs: Sequence[Tensor], y: Tensor) -> Tensor:
        values = []
        for s, t in zip(ours, theirs, strict=True):
            size = (s.shape[2], s.shape[3])
            near = grid.near_objects(y, size, stride=params.stride, share=params.share)
            values.append(losses.imitation(s, t, near))
        return torch.stack(values).sum(dim=0)

    return Compared(
        compare,
        torch.nn.ModuleList(adapters.regressor(s, t, generator) for s, t in both),
        torch.nn.ModuleList(adapters.like_regressed(s, t) for s, t in both),
    )


def _of_the_grid(params: BoundedShapes, task: Task, key: str) -> None:
    stride = task.inputs[1] // task.answer[0]
    if params.stride != stride:
        raise ConfigError(f"{key}.stride is {params.stride}; expected {stride}, as task.stride is")


def _bounded(params: BoundedShapes, *_: Any) -> Compared:
    def compare(ours: Sequence[Tensor], theirs: Sequence[Tensor], y: Tensor) -> Tensor:
        [student], [teacher] = ours, theirs
        size, classes = (student.shape[1], student.shape[2]), student.shape[3] - SHAPE
        maps = grid.drawn(y, size, stride=params.stride, classes=classes)
        s, t = student[..., -SHAPE:], teacher[..., -SHAPE:]
        return losses.bounded(s, t, maps.shape, maps.near, margin=params.margin)

    return logits(compare)


FORMS = {
    "imitation": Form(
        "Wang et al. 2019, arXiv:1906.03609", "maps", _imitation, Imitation, asks=("boxes",)
    ),
    "bounded-shapes": Form(
        "Chen et al. 2017, NIPS",
        "logits",
        _bounded,
        BoundedShapes,
        asks=("boxes",),
        fits=_of_the_grid,
    ),
}
