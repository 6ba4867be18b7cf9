"""Forms of knowledge by name: what a distillation passes on, term by term.

A form says which layers of student and teacher it looks at, what is learned beside the student to
compare them, and the loss. `BUILT_IN` is the whole list. The weight of a term is the published one
unless given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen, Knowledge, validate
from fedkd.errors import ConfigError
from fedkd.knowledge import feature, label
from fedkd.learning import adapters
from fedkd.learning.adapters import Shape
from fedkd.names import nearest

Compare = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], Tensor]
"""A loss of the student's and the teacher's layers, adapted, and labels (N,); not reduced."""


@dataclass(frozen=True)
class Compared:
    """How a form compares layers.

    Attributes:
        loss: see `Compare`.
        student: for each layer what adapts the student's; learned with the student.
        teacher: for each layer what adapts the teacher's; fixed.
    """

    loss: Compare
    student: nn.ModuleList
    teacher: nn.ModuleList


class Weighted(Frozen):
    """The parameters that every form has."""

    weight: float = Field(default=1.0, gt=0)


@dataclass(frozen=True)
class Form:
    """A form of knowledge.

    Attributes:
        paper: where it comes from.
        looks_at: the model's answer, any features, feature maps, or layer after layer.
        build: parameters, shapes of the student's layers, of the teacher's, and a generator for
            what is learned.
        Params: its parameters.
        couples: whether the loss of a sample depends on others of its batch.
    """

    paper: str
    looks_at: Literal["logits", "features", "maps", "layers"]
    build: Callable[[Any, Sequence[Shape], Sequence[Shape], torch.Generator], Compared]
    Params: type[Weighted] = Weighted
    couples: bool = False


class Tempered(Weighted):
    """A form that softens logits."""

    temperature: float = Field(default=4.0, gt=0)


class KD(Tempered):
    """Parameters of `kd`."""

    weight: float = Field(default=0.9, gt=0)


class Hint(Weighted):
    """Parameters of `fitnets`."""

    weight: float = Field(default=100.0, gt=0)


def _alone(loss: Callable[[Tensor, Tensor], Tensor], **adapting: nn.Module) -> Compared:
    """One layer a side, and no labels."""
    return Compared(
        lambda student, teacher, _y: loss(student[0], teacher[0]),
        nn.ModuleList([adapting.get("student", nn.Identity())]),
        nn.ModuleList([adapting.get("teacher", nn.Identity())]),
    )


def _kd(params: KD, *_: Any) -> Compared:
    return _alone(partial(label.kd, temperature=params.temperature))


def _fitnets(
    _params: Hint, student: Sequence[Shape], teacher: Sequence[Shape], generator: torch.Generator
) -> Compared:
    return _alone(
        partial(feature.hint, regressor=lambda regressed: regressed),
        student=adapters.regressor(student[0], teacher[0], generator),
        teacher=adapters.like_regressed(student[0], teacher[0]),
    )


BUILT_IN: dict[str, Form] = {
    "kd": Form("Hinton et al. 2015, arXiv:1503.02531", "logits", _kd, KD),
    "fitnets": Form("Romero et al. 2015, arXiv:1412.6550", "features", _fitnets, Hint),
}


def find(name: str) -> Form:
    """A form by name.

    Raises:
        ConfigError: there is none.
    """
    if name not in BUILT_IN:
        raise ConfigError(
            f"unknown form of knowledge {name!r}: {nearest(name, BUILT_IN)}valid here: "
            f"{', '.join(BUILT_IN)}"
        )
    return BUILT_IN[name]


def parameters(knowledge: Knowledge, number: int) -> Weighted:
    """The form's parameters, complete.

    Args:
        knowledge: what the configuration says.
        number: which of the `[[knowledge]]` it is, from 0.

    Raises:
        ConfigError: the form, a key or a value is wrong.
    """
    form = find(knowledge.name)
    return validate(form.Params, knowledge.parameters, prefix=f"knowledge[{number}].")
