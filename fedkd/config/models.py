"""Models by name, and the weights that they start from."""

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, Literal, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from fedkd.config.parts import Frozen, ShortChoice, absent

_Part = TypeVar("_Part", bound=Frozen)


RANDOM = "random"
"""Written as weights: none."""


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

    def __str__(self) -> str:
        """Alike at all parties, wherever each has its copy, and another for other weights."""
        known = [] if self.sha256 is None else [self.sha256[:8]]
        return " ".join(
            [PurePath(self.file).name, *known, *([] if self.head is None else ["new head"])]
        )


class ModelSpec(ShortChoice):
    """A model by name, with its options: `"mlp"` or `{ name = "resnet8", norm = "group" }`.

    The name is a built-in, one of a hub (`"torchvision/NAME"`, `"timm/NAME"`, `"hf/FOLDER"`), or an
    import path, `"package.module:Class"`.
    """

    weights: Weights | None = Field(default=None, exclude_if=absent)
    """What it starts from; None: random weights from the experiment's seed."""

    @model_serializer(mode="wrap")
    def _to_string(self, handler: SerializerFunctionWrapHandler) -> Any:
        return handler(self) if self.options or self.weights else self.name

    @property
    def options(self) -> dict[str, Any]:
        """What is passed to the model's factory beside what it asks for of the task."""
        return self.parameters

    def __str__(self) -> str:
        shown = [f"{key}={value}" for key, value in sorted(self.options.items())]
        if self.weights is not None:
            shown.append(f"weights={self.weights}")
        family, _, folder = self.name.partition("/")
        name = f"hf/{PurePath(folder).name}" if family == "hf" else self.name
        return f"{name}({', '.join(shown)})" if shown else name


def specs_in(part: Frozen) -> list[ModelSpec]:
    """All models in a part of the configuration."""
    found: list[ModelSpec] = []

    def see(spec: ModelSpec) -> ModelSpec:
        found.append(spec)
        return spec

    with_specs(part, see)
    return found


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
