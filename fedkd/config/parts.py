"""What federations and distillations are both made of: parts, choices by name, and hardware."""

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What an experiment may be called: it names a folder."""


class Frozen(BaseModel):
    """A part of the configuration: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def absent(value: object) -> bool:
    """Whether a key that came later says nothing, so that an experiment keeps its SHA-256."""
    return not value


class Choice(Frozen):
    """Something by name; every other key is its own parameter."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str = Field(min_length=1)

    @property
    def parameters(self) -> dict[str, Any]:
        """Its own parameters, validated by whoever has the name."""
        return dict(self.model_extra or {})


class TaskChoice(Choice):
    """What is asked of models, by name; other keys are the task's own."""

    name: str = Field(default="classification", min_length=1)
    scores: tuple[str, ...] = ()
    """How good answers are, by name or import path; the first is the headline. The task's own
    unless named."""


CLASSIFICATION = TaskChoice()


def is_classification(task: object) -> bool:
    """Whether a task is what a configuration without `[task]` asks for, and so is left out."""
    return task == CLASSIFICATION


class ShortChoice(Choice):
    """A choice that may be said by its name alone: `"mlp"` for `{ name = "mlp" }`."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _to_string(self, handler: SerializerFunctionWrapHandler) -> Any:
        return handler(self) if self.parameters else self.name

    def __str__(self) -> str:
        parameters = ", ".join(f"{key}={value}" for key, value in sorted(self.parameters.items()))
        return f"{self.name}({parameters})" if parameters else self.name


class Output(Frozen):
    """Where run folders go."""

    folder: str = "runs"
    track: tuple[Literal["mlflow", "tensorboard", "wandb"], ...] = Field(
        default=(), exclude_if=absent
    )
    """Experiment trackers that are told of the run: docs/sweeps.md."""


def _is_cpu(value: object) -> bool:
    return value == "cpu"


def _is_float32(value: object) -> bool:
    return value == "float32"


class Hardware(Frozen):
    """On what models learn and answer."""

    device: str = Field(default="cpu", min_length=1, exclude_if=_is_cpu)
    """`"cpu"`; `"auto"`, the first accelerator that is there; `"cuda"`, `"cuda:1"`, `"mps"`; or
    several of a kind, `"cuda:0,cuda:1"`, among which clients are shared out."""
    precision: Literal["float32", "bfloat16"] = Field(default="float32", exclude_if=_is_float32)
    """In what models compute; parameters, answers and losses are float32 in any case."""
