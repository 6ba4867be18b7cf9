"""One party's distillation: what one TOML file says."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import tomli_w
from pydantic import (
    Field,
    model_validator,
)

from fedkd.config.models import ModelSpec
from fedkd.config.parts import (
    CLASSIFICATION,
    NAME,
    Choice,
    Frozen,
    Hardware,
    Output,
    TaskChoice,
    absent,
    is_classification,
)
from fedkd.config.source import Source
from fedkd.config.training import DPSGD, Optimisation


class Trained(Frozen):
    """A model and how it is trained."""

    model: ModelSpec = ModelSpec(name="lenet5")
    training: Optimisation = Optimisation()
    views: tuple[str, ...] = Field(default=(), exclude_if=absent)
    """The view of a record that it sees; all of a record unless given."""


class RecordPrivacy(DPSGD):
    """What may be spent so that a student hides any one record of its training data."""

    epsilon: float = Field(gt=0)
    """The budget: the most that one data set may ever cost."""


class Teacher(Trained):
    """A teacher, trained at the run's start or given."""

    weights: str | None = Field(default=None, min_length=1)
    """Given: a run folder, whose student it is, or a .safetensors file with weights of `model`."""
    data: Literal["private", "public"] = "private"
    """What given weights were learned from; under [privacy] it must have been public data."""


class WayChoice(Choice):
    """How the student learns, by name; every other key is the way's own parameter."""


class Knowledge(Choice):
    """A form of knowledge by name, and the layers it looks at; other keys are its parameters."""

    student: tuple[str, ...] = ()
    """The student's layers; the form's own default unless named."""
    teacher: tuple[str, ...] = ()
    """The teacher's layers, one for each of the student's."""

    @model_validator(mode="before")
    @classmethod
    def _one_layer(cls, value: Any) -> Any:
        """A single layer may stand without brackets."""
        if not isinstance(value, Mapping):
            return value
        sides = {key: value[key] for key in ("student", "teacher") if key in value}
        lists = {k: (v,) if isinstance(v, str) else v for k, v in sides.items()}
        return {**value, **{k: tuple(v) if isinstance(v, list) else v for k, v in lists.items()}}


class Distillation(Frozen):
    """One party's distillation, complete."""

    name: str = Field(pattern=NAME, max_length=80)
    seed: int = Field(default=0, ge=0)
    plain: bool = True
    """Whether the student is trained on labels alone as well, to be compared with."""
    task: TaskChoice = Field(default=CLASSIFICATION, exclude_if=is_classification)
    """What is asked of models."""
    data: Source = Source()
    teachers: tuple[Teacher, ...] = ()
    student: Trained = Trained()
    way: WayChoice = WayChoice(name="offline")
    knowledge: tuple[Knowledge, ...] = ()
    privacy: RecordPrivacy | None = None
    engine: Hardware = Field(default=Hardware(), exclude_if=lambda value: value == Hardware())
    output: Output = Output()

    @model_validator(mode="after")
    def _somebody_sees_views(self) -> Self:
        if self.data.views and not any(each.views for each in (self.student, *self.teachers)):
            raise ValueError("[data.views] names views that nobody sees: leave it out")
        return self

    def to_toml(self) -> str:
        """The complete distillation as TOML; `load_distillation` reads it back equal."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))
