"""What federations and distillations are both made of: models, data and noise."""

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, Literal, Self, TypeVar

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


_Part = TypeVar("_Part", bound=Frozen)


def absent(value: object) -> bool:
    """Whether a key that came later says nothing, so that an experiment keeps its SHA-256."""
    return not value


class Weights(Frozen):
    """Weights that a model starts from: `"resnet18.safetensors"`, or a table.

    They count as public: all parties hold them, and whoever chose them knew no client's records.
    """

    file: str = Field(min_length=1)
    """A .safetensors file, a run folder (its student), or a local Hugging Face folder; `random`:
    none, even where a Hugging Face folder has some."""
    head: Literal["new"] | None = Field(default=None, exclude_if=absent)
    """`new`: the last layer starts fresh, as for another number of classes."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", exclude_if=absent)
    """What the weights must be; written into a run's config.toml, and what parties agree on."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value


class ModelSpec(Frozen):
    """A model by name, with its options: `"mlp"` or `{ name = "resnet8", norm = "group" }`.

    The name is a built-in, one of a hub (`"torchvision/NAME"`, `"timm/NAME"`, `"hf/FOLDER"`), or an
    import path, `"package.module:Class"`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str = Field(min_length=1)
    weights: Weights | None = Field(default=None, exclude_if=absent)
    """What it starts from; None: random weights from the experiment's seed."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _to_string(self, handler: SerializerFunctionWrapHandler) -> Any:
        return handler(self) if self.options or self.weights else self.name

    @property
    def options(self) -> dict[str, Any]:
        """What is passed to the model's factory beside what it asks for of the task."""
        return dict(self.model_extra or {})

    def __str__(self) -> str:
        said = [f"{key}={value}" for key, value in sorted(self.options.items())]
        if self.weights is not None:
            said.append(f"weights={PurePath(self.weights.file).name}")
        return f"{self.name}({', '.join(said)})" if said else self.name


def with_specs(part: _Part, change: Callable[[ModelSpec], ModelSpec]) -> _Part:
    """A part of the configuration with each model in it, however deep, put through `change`."""
    return part.model_copy(
        update={name: new for name, old in part if (new := _changed(old, change)) is not old}
    )


def _changed(value: Any, change: Callable[[ModelSpec], ModelSpec]) -> Any:
    if isinstance(value, ModelSpec):
        return change(value)
    if isinstance(value, Frozen):
        return with_specs(value, change)
    if isinstance(value, tuple | list):
        return type(value)(_changed(each, change) for each in value)
    if isinstance(value, Mapping) and {"name", "weights"} <= value.keys():
        # A model among the parameters of a method, which stay a plain table here.
        return change(ModelSpec.model_validate(value)).model_dump(mode="json")
    return value


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


class DPSGD(Frozen):
    """How noise is added to the training of a model, and where it is accounted for."""

    delta: float = Field(default=1e-5, gt=0, lt=1)
    """Well below one over the number of units that are hidden."""
    most_records: int | None = Field(default=None, ge=1)
    """`record`: a public number that no data set's records reach; 10,000 unless given. Delta is
    held against it, so that no refusal tells how many records there are."""
    noise_multiplier: float | None = Field(default=None, gt=0)
    """Noise over sensitivity; without it, the least with which the whole plan fits the budget."""
    clip: float = Field(default=1.0, ge=1e-6, le=1e6)
    """`record`: the L2 norm that a record's gradient, or its features, are clipped to."""
    sample_rate: float = Field(default=0.05, gt=0, le=1)
    """`record`: the probability with which a step takes each record; public, equal for all."""
    batch_size: int | None = Field(default=None, ge=1)
    """`record`: what a step's noisy sum is divided by; public; that of training unless given."""
    ledger: str | None = Field(default=None, min_length=1)
    """A folder for the ledgers, so that all runs share one budget; the run's own unless given."""


class Output(Frozen):
    """Where run folders go."""

    folder: str = "runs"


def _is_point(value: object) -> bool:
    return value == "."


class Source(Frozen):
    """Where data comes from, and what is held out for testing."""

    name: str = "fashion-mnist-sample"
    """A known name, such as `fashion-mnist-sample`, or the path of an .npz or .csv file."""
    label: str = "label"
    """CSV: the column of labels."""
    client: str | None = None
    """CSV: the column that says whose row it is; left out of the features."""
    ignore: tuple[str, ...] = Field(default=(), exclude_if=absent)
    """CSV: columns that are left out, such as dates and identifiers."""
    decimal: Literal[".", ","] = Field(default=".", exclude_if=_is_point)
    """CSV: what stands in front of a number's decimals."""
    missing: Literal["refuse", "indicate"] = "refuse"
    """CSV: of cells without a value; `indicate`: 0, and a column `X?` more for each column `X`."""
    limits: dict[str, tuple[float, float]] = Field(default={}, exclude_if=absent)
    """Rows of features: what becomes -1 and 1 of a column, by its name; others stay as they are."""
    test_share: float = Field(default=0.2, gt=0, lt=1)
    """CSV and hospitals: the share of rows held out for testing, each by a hash of itself."""
    test: str | None = Field(default=None, min_length=1)
    """CSV: a file of its own whose rows are for testing; then none is held out."""

    @model_validator(mode="after")
    def _needed_is_not_ignored(self) -> Self:
        for key, column in (("label", self.label), ("client", self.client)):
            if column in self.ignore:
                raise ValueError(
                    f"data.ignore names {column!r}, which is data.{key}: leave it out there"
                )
        return self


Format = Literal["npz", "csv"]
"""The forms of a party's own data."""
