"""Models of other libraries, by name: `torchvision/resnet18`, `timm/NAME`, `hf/FOLDER`.

One library, one file, each with `build(name, shape, classes, options)`. They are built with random
weights and nothing is ever downloaded: weights come from a file (`fedkd.models.weights`).
"""

from importlib import import_module
from pathlib import Path

from torch import nn

from fedkd.config import ModelSpec, Weights
from fedkd.errors import ConfigError
from fedkd.tasks import Task

FAMILIES = {
    "torchvision": "fedkd.models.hub.torchvision",
    "timm": "fedkd.models.hub.timm",
    "hf": "fedkd.models.hub.huggingface",
}
"""By what stands in front of the stroke in a model's name."""
EXTRAS = {"torchvision": "vision", "timm": "vision", "transformers": "text"}
"""Their libraries, and which of our extras installs each."""


def family(name: str) -> str | None:
    """Which family a model's name is of; None where it is of none."""
    first, stroke, _ = name.partition("/")
    return first if stroke and first in FAMILIES else None


def folder(spec: ModelSpec) -> Path | None:
    """The folder that a model of family `hf` is read from; None of any other model."""
    return Path(spec.name.partition("/")[2]).expanduser() if family(spec.name) == "hf" else None


def build(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, task: Task | None = None
) -> nn.Module:
    """A model of a family, with random weights, for these inputs and so many classes.

    Of texts it answers as the task asks.

    Raises:
        ConfigError: its library is not installed, has no such model, or cannot build it so.
    """
    name, known = spec.name.partition("/")[2], family(spec.name) or ""
    own = {"task": task} if known == "hf" else {}
    build = import_module(FAMILIES[known]).build
    try:
        model: nn.Module = build(name, shape, classes, spec.options, **own)
    except ConfigError:
        raise
    except Exception as error:  # whatever a library says of options that it does not take
        raise ConfigError(
            f"model {str(spec)!r} cannot be built for inputs of shape {shape} and {classes} "
            f"classes: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    return model


def with_own_weights(spec: ModelSpec) -> ModelSpec:
    """A Hugging Face folder's model with the weights in that folder, unless it names others."""
    path = folder(spec)
    if path is None:
        return spec
    path = path.resolve()
    update: dict[str, object] = {"name": f"hf/{path}"}
    if spec.weights is None and any(path.glob("*.safetensors")):
        update["weights"] = Weights(file=str(path))
    return spec.model_copy(update=update)
