"""Copies of a model, at a fifth of what `copy.deepcopy` costs where its layers are simple."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType
from typing import Any

from torch import Tensor, nn

_HELD = ("_parameters", "_buffers", "_modules")
_PLAIN = (bool, int, float, str, type(None), FunctionType)


@dataclass(frozen=True, eq=False)
class Copier:
    """Makes copies of a model, each with tensors of its own, for as long as the model is as it is.

    Layers that hold more than parameters, buffers, other layers and constants, such as an LSTM with
    its list of weights, are copied by `copy.deepcopy`.
    """

    model: nn.Module

    def __call__(self) -> nn.Module:
        """A copy with the model's own weights."""
        return _copied(self.model, {}) if self._simple else copy.deepcopy(self.model)

    def holding(self, weights: Mapping[str, Tensor]) -> nn.Module | None:
        """A copy that holds weights by name; None if they are not just those of the state dict.

        Raises:
            RuntimeError: they have other shapes, as of `load_state_dict`.
        """
        if weights.keys() != self._places.keys():
            return None
        # What has two names gets what comes last, and other types are converted.
        apart = len({id(each) for each in self._places.values()}) == len(self._places)
        if (
            self._simple
            and apart
            and all(_alike(place, weights[name]) for name, place in self._places.items())
        ):
            return _copied(self.model, {id(self._places[name]): t for name, t in weights.items()})
        model = self()
        model.load_state_dict(weights)
        return model

    @cached_property
    def _simple(self) -> bool:
        return all(_is_simple(layer) for layer in self.model.modules())

    @cached_property
    def _places(self) -> dict[str, Tensor]:
        """The very tensors that the model holds, by their names in its state dict."""
        return self.model.state_dict(keep_vars=True)


def _is_simple(layer: nn.Module) -> bool:
    return all(_is_plain(value) for name, value in vars(layer).items() if name not in _HELD)


def _is_plain(value: Any) -> bool:
    """A constant, a function, or a collection of such: hooks by number, or names of buffers."""
    if isinstance(value, dict):
        return _is_plain(tuple(value.values()))
    if isinstance(value, tuple | set):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def _copied(model: nn.Module, given: Mapping[int, Tensor]) -> nn.Module:
    """A copy in which `given` stand in place of tensors, by the identity of these."""
    tensors: dict[int, Tensor] = {}
    layers: dict[int, nn.Module] = {}
    """What was copied, by the identity of the first: what stands in two places still does."""

    def tensor(first: Tensor) -> Tensor:
        if id(first) not in tensors:
            own: Tensor = given.get(id(first), first).detach().clone()
            is_parameter = isinstance(first, nn.Parameter)
            tensors[id(first)] = nn.Parameter(own, first.requires_grad) if is_parameter else own
        return tensors[id(first)]

    def layer(first: nn.Module) -> nn.Module:
        if id(first) not in layers:
            layers[id(first)] = own = object.__new__(type(first))
            for name, value in vars(first).items():
                if name in _HELD:
                    copied = layer if name == "_modules" else tensor
                    held = {
                        key: None if each is None else copied(each) for key, each in value.items()
                    }
                    vars(own)[name] = held
                else:
                    vars(own)[name] = value.copy() if isinstance(value, dict | set) else value
        return layers[id(first)]

    return layer(model)
