"""What a model's layers give: named layers looked at from outside, by hooks that are gone after."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedkd.errors import ConfigError
from fedkd.names import nearest

LOGITS = ""
"""The name of the model itself among its layers, so that its answer is a layer's output too."""


def show(model: nn.Module, x: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """Run a model and keep what the named layers give.

    Gradients reach the layers' outputs. The model's mode is left as it is. Only one thread at a
    time may look into a model.

    Args:
        model: any module.
        x: inputs (N, *shape).
        layers: dotted names, as in `model.named_modules()`.

    Returns:
        What each layer gives, (N, ...), and the model's answer under `LOGITS`.

    Raises:
        ConfigError: there is no such layer (the nearest and all valid ones are named), or its
            output is no tensor, was overwritten by a later layer, or came more than once or never.
    """
    wanted = [name for name in dict.fromkeys(layers) if name != LOGITS]
    for name in wanted:
        check_layer(model, name)
    with _watching(model, wanted) as looks:
        logits = model(x)
    return {LOGITS: logits, **{name: _output(name, looks.get(name, [])) for name in wanted}}


def check_layer(model: nn.Module, name: str) -> None:
    """Refuse a layer that the model does not have.

    Raises:
        ConfigError: names the nearest and all valid ones.
    """
    valid = [own for own, _ in model.named_modules() if own]
    if name not in valid:
        raise ConfigError(
            f"unknown layer {name!r}: {nearest(name, valid)}valid here: {', '.join(valid)}"
        )


@dataclass(frozen=True)
class Anatomy:
    """What a model's layers give for one input, and which of them come into question by default.

    Attributes:
        shapes: of each layer's output without the batch: (C, H, W) for maps, (D,) for rows; the
            model's own under `LOGITS`.
        features: the last layer before the last linear one; None where there is no layer before.
        maps: the last of these that gives maps of more than one place; None where none does.
    """

    shapes: Mapping[str, tuple[int, ...]]
    features: str | None
    maps: str | None


@torch.no_grad()
def dissect(model: nn.Module, shape: tuple[int, ...]) -> Anatomy:
    """Try a model in evaluation mode on empty inputs of `shape`; its mode is put back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with _watching(model, [name for name, _ in model.named_modules() if name]) as looks:
            logits = model(torch.zeros(2, *shape))
    finally:
        for module in training:
            module.training = True
    # In the order in which they finished: a block comes after the layers inside it.
    order = list(looks)
    linear = [name for name in order if isinstance(model.get_submodule(name), nn.Linear)]
    before = order[: order.index(linear[-1])] if linear else order
    outputs = {name: seen[0].output for name, seen in looks.items()}
    shapes = {n: tuple(out.shape[1:]) for n, out in outputs.items() if isinstance(out, Tensor)}
    features = [name for name in before if name in shapes]
    maps = [name for name in features if len(shapes[name]) == 3 and shapes[name][1:] != (1, 1)]
    return Anatomy(
        shapes={LOGITS: tuple(logits.shape[1:]), **shapes},
        features=features[-1] if features else None,
        maps=maps[-1] if maps else None,
    )


@dataclass(frozen=True)
class _Look:
    """A layer's output, and how often it had been written to when it left the layer."""

    output: Any
    version: int


@contextmanager
def _watching(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, list[_Look]]]:
    """Collect every output of the named layers, in the order in which they came."""
    looks: dict[str, list[_Look]] = {}

    def keep(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        version = output._version if isinstance(output, Tensor) else 0
        looks.setdefault(name, []).append(_Look(output, version))

    handles = [
        model.get_submodule(name).register_forward_hook(partial(keep, name)) for name in names
    ]
    try:
        yield looks
    finally:
        for handle in handles:
            handle.remove()


def _output(name: str, looks: list[_Look]) -> Tensor:
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
    if output._version != looks[0].version:
        raise ConfigError(
            f"the output of layer {name!r} is overwritten by a later layer: name that layer, or "
            "build it with inplace=False"
        )
    return output
