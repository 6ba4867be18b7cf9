"""Building a model from its specification."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from fedkd.config import Frozen, ModelSpec, validate
from fedkd.errors import ConfigError
from fedkd.models import classifiers
from fedkd.models.random_filters import RandomFiltersOptions, random_filters
from fedkd.models.scattering import ScatteringOptions, scattering
from fedkd.names import imported, unknown
from fedkd.rng import torch_default

# Any: each function takes its own options class, the one that stands beside it.
_Build = Callable[[tuple[int, ...], int, Any], nn.Module]

_MODELS: dict[str, tuple[type[Frozen], _Build]] = {
    "dense-cnn": (classifiers.DenseCNNOptions, classifiers.dense_cnn),
    "lenet5": (classifiers.NoOptions, classifiers.lenet5),
    "mlp": (classifiers.MLPOptions, classifiers.mlp),
    "resnet8": (classifiers.ResNetOptions, classifiers.resnet8),
    "scattering": (ScatteringOptions, scattering),
    "random-filters": (RandomFiltersOptions, random_filters),
}

NAMES = tuple(_MODELS)
"""The built-in classifiers."""


def build(
    spec: ModelSpec, *, shape: tuple[int, ...], classes: int, generator: torch.Generator
) -> nn.Module:
    """Build and initialise a classifier, in training mode.

    Args:
        spec: a built-in name, or an import path `"package.module:Class"` of something that returns
            an `nn.Module` when called with keywords `shape`, `classes` and the options.
        shape: of one input: (channels, height, width), or (features,) for rows.
        classes: how many logits come out.
        generator: determines the initial weights.

    Raises:
        ConfigError: the name or an option is unknown, the shape does not fit, or what the import
            path leads to does not turn (N, *shape) into (N, classes).
    """
    with torch_default(generator):
        model = _own(spec, shape, classes) if ":" in spec.name else _named(spec, shape, classes)
        _try_out(model, spec, shape, classes)
    return model


def with_group_norm(spec: ModelSpec) -> str | None:
    """What to write for the same built-in model with group norm; None where it has no such option.

    None too where the specification already chose it.
    """
    options = _MODELS[spec.name][0].model_fields if spec.name in _MODELS else {}
    if "norm" not in options or spec.options.get("norm") == "group":
        return None
    chosen = {"name": spec.name, **spec.options, "norm": "group"}
    return "{ " + ", ".join(f"{key} = {value!r}" for key, value in chosen.items()) + " }"


def _named(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    if spec.name not in _MODELS:
        also = ", or your own, 'package.module:Class'"
        raise ConfigError(unknown("model", spec.name, NAMES, also=also))
    options, function = _MODELS[spec.name]
    chosen = validate(options, spec.options, prefix=f"{spec.name}.")
    try:
        return function(shape, classes, chosen)
    except (RuntimeError, MemoryError) as error:
        raise ConfigError(f"model {str(spec)!r} cannot be built: {error}") from error


def _own(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The model that the user's import path leads to."""
    factory = imported(spec.name, what="model")
    if not callable(factory):
        raise ConfigError(
            f"model {spec.name!r} is {type(factory).__name__!r}: expected a class or a function"
        )
    arguments = {"shape": shape, "classes": classes, **spec.options}
    try:
        return cast("nn.Module", factory(**arguments))
    except Exception as error:
        raise ConfigError(
            f"model {spec.name!r} cannot be built from the keywords {', '.join(arguments)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _try_out(model: object, spec: ModelSpec, shape: tuple[int, ...], classes: int) -> None:
    """Push two empty inputs through, so that a misfit shows before the first round."""
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model {spec.name!r} returned {type(model).__name__!r}: expected a torch.nn.Module"
        )
    model.eval()
    try:
        with torch.no_grad():
            output = model(torch.zeros(2, *shape))
    except Exception as error:
        raise ConfigError(
            f"model {spec.name!r} cannot take inputs of shape {shape}: {error}"
        ) from error
    model.train()
    found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if found != (2, classes):
        raise ConfigError(
            f"model {spec.name!r} turns 2 inputs into {found}: expected logits {(2, classes)}"
        )
