"""Building a model from its specification."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedkd import optional
from fedkd.config import Frozen, ModelSpec, validate
from fedkd.errors import ConfigError
from fedkd.models import call, classifiers, hub, recommenders, text, weights
from fedkd.models.centre_point import CentrePointOptions, centre_point
from fedkd.models.fixed.contrast_filters import ContrastFiltersOptions, contrast_filters
from fedkd.models.fixed.random_filters import RandomFiltersOptions, random_filters
from fedkd.models.fixed.scattering import ScatteringOptions, scattering
from fedkd.models.fusion import Fusion, FusionOptions
from fedkd.models.hourglass import HourglassOptions, hourglass
from fedkd.models.text import pairs
from fedkd.models.unet import UNetOptions, unet
from fedkd.names import choices, imported
from fedkd.rng import torch_default
from fedkd.rows import Batch
from fedkd.tasks import Task

# Any: each function takes its own options class, the one that stands beside it.
_Build = Callable[[tuple[int, ...], int, Any], nn.Module]
_DenseBuild = Callable[[tuple[int, ...], tuple[int, ...], Any], nn.Module]

_MODELS: dict[str, tuple[type[Frozen], _Build]] = {
    "dense-cnn": (classifiers.DenseCNNOptions, classifiers.dense_cnn),
    "lenet5": (classifiers.NoOptions, classifiers.lenet5),
    "mlp": (classifiers.MLPOptions, classifiers.mlp),
    "mult-dae": (recommenders.MultDAEOptions, recommenders.mult_dae),
    "resnet8": (classifiers.ResNetOptions, classifiers.resnet8),
    "two-tower": (recommenders.TwoTowerOptions, recommenders.two_tower),
    "scattering": (ScatteringOptions, scattering),
    "random-filters": (RandomFiltersOptions, random_filters),
    "contrast-filters": (ContrastFiltersOptions, contrast_filters),
}

_DENSE: dict[str, tuple[type[Frozen], _DenseBuild]] = {
    "hourglass": (HourglassOptions, hourglass),
    "centre-point": (CentrePointOptions, centre_point),
    "unet": (UNetOptions, unet),
}
"""Models whose answer has more axes than one: (a record's shape, its answer's shape, options)."""

_OF_VIEWS = {"fusion": (FusionOptions, Fusion)}
"""Models of records that are tables: (two empty records, how many classes, options)."""

NAMES = (*_MODELS, *_DENSE, *text.BUILT_IN)
"""The built-in models of records of one tensor, which need nothing beside fedkd."""


def build(
    spec: ModelSpec,
    *,
    shape: tuple[int, ...],
    classes: int,
    generator: torch.Generator,
    columns: Mapping[str, Tensor] | None = None,
    task: Task | None = None,
) -> nn.Module:
    """Build and initialise a classifier, in training mode.

    Args:
        spec: a built-in name, one of a hub (`fedkd.models.hub`), or an import path
            `"package.module:Class"` of something that returns an `nn.Module` when called with the
            options and what else its signature names: see `_offered`.
        shape: of one input: (channels, height, width), or (features,) for rows.
        classes: how many logits come out.
        generator: determines the initial weights, unless the specification names some.
        columns: two empty records, where records are tables: the model is called with these
            keywords, and asks for `shape` by name.
        task: what is asked of the model, for a factory that asks for it; its inputs are `shape`.
            None: one of classes.

    Raises:
        ConfigError: the name or an option is unknown, the shape does not fit, what the import path
            leads to does not turn (N, *shape) into (N, classes), or weights do not fit the model.
    """
    if task is not None and (each := pairs.of_one(task)) is not None:
        one = build(spec, shape=each.inputs, classes=classes, generator=generator, task=each)
        return pairs.Pairs(one)
    x: Batch
    if columns is not None:
        x = columns
    else:
        x = torch.zeros(2, *shape) if task is None else task.blank(2)
    answer = (classes,) if task is None else task.answer
    with torch_default(generator):
        model: object
        if hub.family(spec.name):
            model = hub.build(spec, shape, classes, task)
        elif ":" in spec.name:
            model = _own(spec, _offered(_shapes(x), classes, task))
        elif task is not None and task.vocabulary is not None:
            model = _of_texts(spec, task)
        elif columns is not None:
            model = _of_views(spec, columns, answer)
        else:
            model = _named(spec, shape, answer)
        if not isinstance(model, nn.Module):
            raise ConfigError(
                f"model {spec.name!r} returned {type(model).__name__!r}: expected a torch.nn.Module"
            )
        weights.load(spec, model)
        if task is not None and "categorical" not in task.offers:
            model.register_forward_hook(call.with_axis)
        if task is not None and "items" in task.offers:
            model.register_forward_hook(call.of_unseen)
        _try_out(model, spec, x, answer)
    return model


def is_own(spec: ModelSpec) -> bool:
    """Whether a specification names a model of fedkd's own, not of a hub or a user."""
    return spec.name in NAMES or spec.name in _OF_VIEWS


def options(name: str) -> type[Frozen]:
    """The options of a model of fedkd's own.

    Args:
        name: one of `NAMES`, or `fusion`.
    """
    if name in text.BUILT_IN:
        return text.BUILT_IN[name].Options
    known = _MODELS.get(name) or _DENSE.get(name) or _OF_VIEWS[name]
    return known[0]


def with_group_norm(spec: ModelSpec) -> str | None:
    """What to write for the same built-in model with group norm; None where it has no such option.

    None too where the specification already chose it.
    """
    known = _DENSE.get(spec.name) or _MODELS.get(spec.name)  # those of texts have no batch norm
    options = {} if known is None else known[0].model_fields
    if "norm" not in options or spec.options.get("norm") == "group":
        return None
    chosen = {"name": spec.name, **spec.options, "norm": "group"}
    return "{ " + ", ".join(f"{key} = {value!r}" for key, value in chosen.items()) + " }"


def _of_views(spec: ModelSpec, columns: Mapping[str, Tensor], answer: tuple[int, ...]) -> nn.Module:
    if spec.name not in _OF_VIEWS or len(answer) > 1:
        raise ConfigError(
            f"model {spec.name!r} takes records of one tensor, and what it sees has the columns "
            f"{', '.join(columns)}: let it see one of these views (clients.views, student.views), "
            "name 'fusion', or a model of your own, 'package.module:Class', which is called with "
            "these keywords"
        )
    options, make = _OF_VIEWS[spec.name]
    return make(columns, answer[0], validate(options, spec.options, prefix=f"{spec.name}."))


def _of_texts(spec: ModelSpec, task: Task) -> nn.Module:
    if spec.name not in text.BUILT_IN:
        also = "hf/FOLDER, or your own, 'package.module:Class'"
        raise ConfigError(
            f"model {spec.name!r} does not take texts: "
            f"{choices(spec.name, text.BUILT_IN, listed=text.BUILT_IN)}, {also}"
        )
    known = text.BUILT_IN[spec.name]
    if task.targets not in known.answers:
        fit = ", ".join(
            name for name, each in text.BUILT_IN.items() if task.targets in each.answers
        )
        raise ConfigError(
            f"model {spec.name!r} does not answer as task {task.name!r} asks: choose one of "
            f"{fit or 'none that is built in'}, or your own, 'package.module:Class'"
        )
    return known.build(task, validate(known.Options, spec.options, prefix=f"{spec.name}."))


def _named(spec: ModelSpec, shape: tuple[int, ...], answer: tuple[int, ...]) -> nn.Module:
    if spec.name in _OF_VIEWS:
        raise ConfigError(
            f"model {spec.name!r} takes several views of a record, and what it sees is one tensor "
            f"of shape {shape}: name two views or more, or choose another model"
        )
    if spec.name in text.BUILT_IN:
        raise ConfigError(
            f"model {spec.name!r} takes texts, and records have shape {shape}: choose another, or "
            "say by [data.text] which column is text"
        )
    if spec.name not in NAMES:
        rest = spec.name.partition("/")[2]
        near = [*NAMES, *(f"{family}/{rest}" for family in hub.FAMILIES if rest)]
        raise ConfigError(
            f"unknown model {spec.name!r}: {choices(spec.name, near, listed=NAMES)}, "
            "torchvision/NAME, timm/NAME, hf/FOLDER, or your own, 'package.module:Class'"
        )
    dense = len(answer) > 1
    if (spec.name in _DENSE) is not dense:
        fit = ", ".join(_DENSE if dense else _MODELS)
        raise ConfigError(
            f"model {spec.name!r} does not answer in the shape {answer}, which the task asks of a "
            f"record: choose one of {fit}, or your own, 'package.module:Class'"
        )
    try:
        if dense:
            options, make = _DENSE[spec.name]
            return make(shape, answer, validate(options, spec.options, prefix=f"{spec.name}."))
        options, function = _MODELS[spec.name]
        chosen = validate(options, spec.options, prefix=f"{spec.name}.")
        return function(shape, answer[0], chosen)
    except (RuntimeError, MemoryError) as error:
        raise ConfigError(f"model {str(spec)!r} cannot be built: {error}") from error


def _shapes(x: Batch) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
    """The shape of one record, of a table by column."""
    if isinstance(x, Tensor):
        return tuple(x.shape[1:])
    return {name: tuple(column.shape[1:]) for name, column in x.items()}


def _offered(
    shape: tuple[int, ...] | dict[str, tuple[int, ...]], classes: int, task: Task | None
) -> dict[str, object]:
    """What a user's factory may ask for, by the names of its parameters."""
    known = {} if task is None else {"task": task}
    return {"shape": shape, "classes": classes, "num_classes": classes, **known}


def _own(spec: ModelSpec, offered: Mapping[str, object]) -> object:
    """What the user's import path leads to makes."""
    library = spec.name.partition(":")[0].partition(".")[0]
    if library in hub.EXTRAS:
        optional.load(library, extra=hub.EXTRAS[library])
    factory = imported(spec.name, what="model")
    if not callable(factory):
        raise ConfigError(
            f"model {spec.name!r} is {type(factory).__name__!r}: expected a class or a function"
        )
    arguments = {**_asked(factory, offered, library), **spec.options}
    try:
        made: object = factory(**arguments)
    except Exception as error:
        raise ConfigError(
            f"model {spec.name!r} cannot be built from the keywords {', '.join(arguments)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return made


def _asked(
    factory: Callable[..., Any], offered: Mapping[str, object], library: str
) -> dict[str, object]:
    """What a factory asks for of what is offered.

    One that takes any keyword gets `shape` and `classes`; in torchvision and timm, whose functions
    hand keywords on to a class of theirs, `num_classes`.
    """
    any_keyword = {"num_classes"} if library in hub.EXTRAS else {"shape", "classes"}
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # written in C, and says nothing
        return {name: offered[name] for name in any_keyword}
    names = {name for name in offered if name in parameters}
    if not names and any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        names = any_keyword
    return {name: value for name, value in offered.items() if name in names}


def _try_out(model: nn.Module, spec: ModelSpec, x: Batch, answer: tuple[int, ...]) -> None:
    """Push two empty inputs through, so that a misfit shows before the first round."""
    model.eval()
    try:
        with torch.no_grad():
            output = call.answer(model, x)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"model {spec.name!r} cannot take inputs of shape {_shapes(x)}: {error}"
        ) from error
    model.train()
    if tuple(output.shape) != (2, *answer):
        raise ConfigError(
            f"model {spec.name!r} turns 2 inputs into {tuple(output.shape)}: expected logits "
            f"{(2, *answer)}"
        )
