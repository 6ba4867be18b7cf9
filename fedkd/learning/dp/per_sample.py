"""The gradient of every record: one backward pass to what layers give, then a rule for each layer.

Book-keeping, Bu et al. 2023, arXiv:2210.00038: parameters take no part in the backward pass. What
entered a layer and the slope of what it gave tell each record's gradient by its parameters, most of
them without building it: see `rules` and `forms`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from fedkd.errors import ConfigError
from fedkd.learning.dp import fallback, recurrent
from fedkd.learning.dp.forms import added, whole
from fedkd.learning.dp.restored import restored
from fedkd.learning.dp.rules import Rule, rule_of
from fedkd.models import call
from fedkd.privacy.gradients import Built, Gradients

Loss = Callable[[Tensor, Tensor], Tensor]
"""Answers (N, *A) and targets (N, ...) to a value per sample (N,), each of its own row alone."""

_MEMORY = 2**26  # floats: what gradients per sample may take where they have to be built


def at_once(parameters: Iterable[Tensor]) -> int:
    """How many samples a batch has at most, for trainable parameters of that size."""
    size = sum(parameter.numel() for parameter in parameters)
    return max(8, min(256, _MEMORY // max(size, 1)))


def has_rule(layer: nn.Module) -> bool:
    """Whether a layer's gradients are found by a rule of our own."""
    return recurrent.serves(layer) or rule_of(layer) is not None


@dataclass(frozen=True, eq=False, slots=True)
class _Use:
    """A call of a layer: what entered it, and what it gave."""

    layer: nn.Module
    rule: Rule
    inputs: tuple[Any, ...]
    end: Tensor
    versions: tuple[int, ...]

    def gradients(self, slope: Tensor) -> Iterator[tuple[Tensor | None, Gradients]]:
        """Each parameter and its gradients, from the slope of what the layer gave."""
        if self.versions != _versions(self.inputs, self.end):
            raise RuntimeError("a tensor that a layer was given or gave was changed in-place")
        kind = slope.dtype
        inputs = (
            each.to(kind) if isinstance(each, Tensor) and each.is_floating_point() else each
            for each in self.inputs
        )
        yield from self.rule(self.layer, tuple(inputs), slope)


class PerSample:
    """A model in training mode that tells the gradient of every sample; a context.

    When the context ends, whichever way, the model is in evaluation mode and bears no trace.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = {
            name: value for name, value in model.named_parameters() if value.requires_grad
        }
        self.rows = at_once(self.parameters.values())
        """Samples at a time."""
        self._model = model
        self._uses: list[Any] = []
        """Of layers, in this pass: each has an `end` and `gradients`."""
        self._watching = False
        layers = list(_learning(model))
        rest = [layer for layer in layers if not recurrent.serves(layer)]
        self._recurrent: list[Any] = [layer for layer in layers if recurrent.serves(layer)]
        others = [layer for layer in rest if rule_of(layer) is None]
        for layer in others:
            fallback.check(layer)
        self._names = {layer: name for name, layer in model.named_modules()}
        self._others = {self._names[layer]: layer for layer in others}
        self._handles = [
            layer.register_forward_hook(partial(self._note, rule_of(layer) or fallback.gradients))
            for layer in rest
        ]
        for layer in self._recurrent:
            layer.forward = partial(recurrent.forward, layer, self._uses)
        # What a layer was given and gave is looked at again: nobody may write into it.
        self._inplace: list[Any] = [
            each for each in model.modules() if getattr(each, "inplace", False)
        ]

    def __enter__(self) -> Self:
        self._model.train()
        for module in self._inplace:
            module.inplace = False  # the same values, out of place
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        for layer in self._recurrent:
            del layer.forward
        for module in self._inplace:
            module.inplace = True
        for parameter in self.parameters.values():
            parameter.grad = None
        self._model.eval()

    def announce(self) -> None:
        """Say which layers have no rule, in the log."""
        fallback.announce(self._others)

    def gradients(self, x: Tensor, y: Tensor, loss: Loss) -> list[Tensor]:
        """As `forms`, each built: (N, *shape_p)."""
        return [whole(each) for each in self.forms(x, y, loss)]

    def forms(self, x: Tensor, y: Tensor, loss: Loss) -> list[Gradients]:
        """The gradient of each sample's loss by each trainable parameter.

        Whatever the model's forward pass writes into its parameters and buffers is put back.

        Raises:
            ConfigError: a layer is called by keyword, or sees other rows than the samples.
        """
        found: dict[Tensor, list[Gradients]] = {each: [] for each in self.parameters.values()}
        try:
            with restored(self._model), _frozen(found):
                slopes = self._slopes(x, y, loss)
                for use, slope in zip(self._uses, slopes, strict=True):
                    if slope is None:  # the loss does not depend on it
                        continue
                    for parameter, each in use.gradients(slope):
                        if parameter is not None and parameter in found:
                            self._check_rows(use.layer, each.shape[0], len(x))
                            found[parameter].append(each)
        finally:
            self._uses.clear()
        return [
            added(each) if each else Built(parameter.new_zeros(()).expand(len(x), *parameter.shape))
            for parameter, each in found.items()
        ]

    def _slopes(self, x: Tensor, y: Tensor, loss: Loss) -> Sequence[Tensor | None]:
        """Forward and backward: the slope of what each use gave."""
        self._watching = True
        try:
            losses = loss(call.answer(self._model, x), y)
        finally:
            self._watching = False
        ends = [use.end for use in self._uses]
        if not ends or not losses.requires_grad:
            return [None] * len(ends)
        # The sum leaves each sample's gradient as it is.
        slopes: Sequence[Tensor | None] = torch.autograd.grad(losses.sum(), ends, allow_unused=True)
        return slopes

    def _note(self, rule: Rule, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what entered a layer, and let what it gives require a gradient."""
        if not self._watching:
            return
        if not inputs:
            raise ConfigError(
                f"DP-SGD cannot train layer {self._names[layer]!r}, {type(layer).__name__}, which "
                "is called by keyword, as in layer(input=x); call it by position: layer(x)"
            )
        if not output.requires_grad:
            output.requires_grad_()
        kept = tuple(each.detach() if _leaves(each) else each for each in inputs)
        self._uses.append(_Use(layer, rule, kept, output, _versions(inputs, output)))

    def _check_rows(self, layer: nn.Module, rows: int, samples: int) -> None:
        if rows != samples:
            raise ConfigError(
                f"DP-SGD cannot train layer {self._names[layer]!r}, {type(layer).__name__}, which "
                f"sees {rows} rows for {samples} samples: expected a first axis of samples in all "
                "that it is given"
            )


def _leaves(value: Any) -> bool:
    """Whether a value is on the way back, and no parameter, by which a tied weight is known."""
    return isinstance(value, Tensor) and not isinstance(value, nn.Parameter)


def _versions(inputs: tuple[Any, ...], output: Tensor) -> tuple[int, ...]:
    """How often each tensor was written into; a parameter is put back by `restored`."""
    return tuple(each._version for each in (*inputs, output) if _leaves(each))


@contextmanager
def _frozen(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Parameters that take no part in a backward pass."""
    parameters = list(parameters)
    for parameter in parameters:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad = True


def _learning(module: nn.Module) -> Iterator[nn.Module]:
    """The layers whose parameters learn; what a layer without a rule is made of is its own."""
    own = {value for value in module._parameters.values() if value is not None}
    inner = {value for child in module.children() for value in child.parameters()}
    own -= inner  # Opacus's recurrent layers call those of their parts their own
    if any(value.requires_grad for value in own):
        yield module
        if not has_rule(module):
            return
    for child in module.children():
        yield from _learning(child)
