"""What a model's layers give: named layers looked at from outside, by hooks that are gone after."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedkd import devices
from fedkd.errors import ConfigError
from fedkd.models.call import answer
from fedkd.models.heads import find_head
from fedkd.names import unknown

INPUTS = "(inputs)"
"""The name of what a model is given, among what its layers give."""
LOGITS = ""
"""The name of the model itself among its layers, so that its answer is a layer's output too."""


def forward_with(model: nn.Module, x: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """Run a model and keep what the named layers give.

    Gradients reach the layers' outputs. The model's mode is left as it is. Only one thread at a
    time may look into a model.

    Args:
        model: any module.
        x: inputs (N, *shape).
        layers: dotted names, as in `model.named_modules()`, or `INPUTS`.

    Returns:
        What each layer gives, (N, ...), and the model's answer under `LOGITS`.

    Raises:
        ConfigError: there is no such layer (the nearest and all valid ones are named), or its
            output is no tensor, was overwritten by a later layer, or came more than once or never.
    """
    asked = dict.fromkeys(layers)
    wanted = [name for name in asked if name not in (LOGITS, INPUTS)]
    valid = [name for name, _ in model.named_modules()]
    for name in wanted:
        if name not in valid:
            raise _unknown(name, valid)
    with _watching(model, wanted) as looks:
        logits = answer(model, x)
    given = {INPUTS: x} if INPUTS in asked else {}
    found = {name: _output(name, looks.get(name, [])) for name in wanted}
    return {LOGITS: logits, **given, **found}


@dataclass(frozen=True)
class LayerShapes:
    """What a model's layers give for one input, and which of them come into question by default.

    Attributes:
        shapes: of each layer's output without the batch: (C, H, W) for maps, (D,) for rows; the
            model's own under `LOGITS`. In the order in which layers finish: a block comes after
            the layers inside it.
        inputs: likewise of what enters each layer, where that is one tensor.
        unfit: why other layers cannot be looked at, by name.
        features: the last layer before the head; None where there is no layer before.
        maps: the last of these that gives maps of more than one place; None where none does.
        prototypes: the weights of the head, (outputs, features); None where there is no head.
    """

    shapes: Mapping[str, tuple[int, ...]]
    inputs: Mapping[str, tuple[int, ...]]
    unfit: Mapping[str, str]
    features: str | None
    maps: str | None
    prototypes: Tensor | None = field(default=None, compare=False)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a layer's output.

        Raises:
            ConfigError: the layer cannot be looked at, or there is none of this name; the nearest
                and all valid ones are named.
        """
        if name in self.unfit:
            raise ConfigError(self.unfit[name])
        if name not in self.shapes or name == LOGITS:
            raise _unknown(name, self.shapes)
        return self.shapes[name]

    def entered(self, name: str) -> tuple[int, ...]:
        """The shape of what enters a layer.

        Raises:
            ConfigError: as `shape`, or the layer takes something else than one tensor.
        """
        self.shape(name)
        if name not in self.inputs:
            raise ConfigError(f"layer {name!r} takes more than one tensor: name another layer")
        return self.inputs[name]


@torch.no_grad()
def inspect_layers(model: nn.Module, shape: tuple[int, ...]) -> LayerShapes:
    """Try a model in evaluation mode on empty inputs of `shape`; its mode is put back."""
    names = [name for name, _ in model.named_modules() if name]
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with _watching(model, names) as looks:
            logits = answer(model, torch.zeros(2, *shape))
    finally:
        for module in training:
            module.training = True
    shapes: dict[str, tuple[int, ...]] = {}
    unfit: dict[str, str] = {}
    for name in [*looks, *(name for name in names if name not in looks)]:
        try:
            shapes[name] = tuple(_output(name, looks.get(name, [])).shape[1:])
        except ConfigError as error:
            unfit[name] = str(error)
    before = _before_head(model, list(shapes))
    maps = [name for name in before if len(shapes[name]) == 3 and shapes[name][1:] != (1, 1)]
    return LayerShapes(
        inputs={name: looks[name][0].entered for name in shapes if looks[name][0].entered},
        shapes={**shapes, LOGITS: tuple(logits.shape[1:])},
        unfit=unfit,
        features=before[-1] if before else None,
        maps=maps[-1] if maps else None,
        prototypes=None if (head := find_head(model)) is None else head.weight.detach().flatten(1),
    )


def _before_head(model: nn.Module, order: list[str]) -> list[str]:
    head = find_head(model)
    names = [name for name in order if model.get_submodule(name) is head]
    return order[: order.index(names[0])] if names else order


def _unknown(name: str, valid: Iterable[str]) -> ConfigError:
    names = [each for each in valid if each != LOGITS]
    return ConfigError(unknown("layer", name, names))


@dataclass(frozen=True)
class _Capture:
    """A layer's output, and how often it had been written to when it left the layer."""

    entered: tuple[int, ...]
    """The shape of what entered, without the batch; empty where that was not one tensor."""
    output: Any
    version: int


@contextmanager
def _watching(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, list[_Capture]]]:
    """Collect every output of the named layers, in the order in which they came."""
    looks: dict[str, list[_Capture]] = {}

    def keep(name: str, _module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        alone = len(inputs) == 1 and isinstance(inputs[0], Tensor)
        entered = tuple(inputs[0].shape[1:]) if alone else ()
        looks.setdefault(name, []).append(_Capture(entered, output, _version(output)))

    handles = [
        model.get_submodule(name).register_forward_hook(partial(keep, name)) for name in names
    ]
    try:
        yield looks
    finally:
        for handle in handles:
            handle.remove()


def _version(output: Any) -> int:
    """How often a tensor was written to; in inference mode nobody counts."""
    counted = isinstance(output, Tensor) and not output.is_inference()
    return output._version if counted else 0


def _output(name: str, looks: list[_Capture]) -> Tensor:
    """The one output of a layer, as it left the layer."""
    if len(looks) != 1:
        raise ConfigError(
            f"layer {name!r} is called {len(looks)} times for an input: expected once; "
            "name another layer"
        )
    output = looks[0].output
    if not isinstance(output, Tensor):
        raise ConfigError(
            f"layer {name!r} gives {type(output).__name__!r}: expected a tensor; name another layer"
        )
    if _version(output) != looks[0].version:
        raise ConfigError(
            f"the output of layer {name!r} is overwritten by a later layer: name that layer, or "
            "build it with inplace=False"
        )
    return devices.widened(output)
