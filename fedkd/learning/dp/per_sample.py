"""The gradient of every record: one backward pass to what layers give, then a rule for each layer.

Book-keeping, Bu et al. 2023, arXiv:2210.00038: parameters take no part in the backward pass. What
entered a layer and the slope of what it gave tell each record's gradient by its parameters, most of
them without building it: see `rules` and `forms`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from torch import Tensor, nn

from fedkd.errors import ConfigError
from fedkd.learning.dp import fallback, recurrent
from fedkd.learning.dp.forms import added, whole
from fedkd.learning.dp.restored import restored
from fedkd.learning.dp.rules import Rule, group_norm, group_normed, rule_of
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
    """A call of a layer, and what entered it."""

    layer: nn.Module
    rule: Rule
    inputs: tuple[Any, ...]
    versions: tuple[int, ...]

    def gradients(self, slope: Tensor) -> Iterator[tuple[Tensor | None, Gradients]]:
        """Each parameter and its gradients, from the slope of what the layer gave."""
        if self.versions != _versions(self.inputs):
            raise RuntimeError("a tensor that a layer was given was changed in-place")
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
        owners = [name.rpartition(".")[0] for name in self.parameters]
        self.layers = [
            [number for number, owner in enumerate(owners) if owner == layer]
            for layer in dict.fromkeys(owners)
        ]
        """Numbers of parameters that one layer has."""
        self._model = model
        self._found: dict[Tensor, list[Gradients]] | None = None
        """In a pass: of each parameter those of each use so far."""
        self._samples = 0
        self._watching = False
        layers = list(_learning(model))
        rest = [layer for layer in layers if not recurrent.serves(layer)]
        # Layers that tell more than they give, so that nothing is worked out twice.
        self._telling: list[Any] = [layer for layer in layers if recurrent.serves(layer)]
        others = [layer for layer in rest if rule_of(layer) is None]
        for layer in others:
            fallback.check(layer)
        self._names = {layer: name for name, layer in model.named_modules()}
        self._others = {self._names[layer]: layer for layer in others}
        self._handles = [
            layer.register_forward_hook(partial(self._note, rule_of(layer) or fallback.gradients))
            for layer in rest
            if rule_of(layer) is not group_norm
        ]
        for layer in self._telling:
            layer.forward = partial(recurrent.forward, layer, self._watch)
        normed: list[Any] = [layer for layer in rest if rule_of(layer) is group_norm]
        for layer in normed:
            layer.forward = partial(self._group_normed, layer)
        self._telling += normed
        # What a layer was given is looked at again: nobody may write into it.
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
        for layer in self._telling:
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
        self._found = {each: [] for each in self.parameters.values()}
        self._samples = len(x)
        try:
            with restored(self._model), _frozen(self._found):
                self._watching = True
                losses = loss(call.answer(self._model, x, relaid=False), y)
                self._watching = False  # on the way back, vmap calls layers again
                if losses.requires_grad:  # or it depends on no layer that learns
                    # The sum leaves each sample's gradient as it is.
                    losses.sum().backward()  # type: ignore[no-untyped-call]
            return [
                added(each)
                if each
                else Built(parameter.new_zeros(()).expand(len(x), *parameter.shape))
                for parameter, each in self._found.items()
            ]
        finally:
            self._found, self._watching = None, False

    def _group_normed(self, layer: nn.GroupNorm, x: Tensor) -> Tensor:
        output, means, scales = group_normed(layer, x)
        self._note(group_norm, layer, (x, means, scales), output)
        return output

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
        self._watch(output, _Use(layer, rule, kept, _versions(inputs)))

    def _watch(self, end: Tensor, use: "_Use | recurrent.Pass") -> None:
        """Find the gradients of a use on the way back, while its slopes are at hand."""
        waiting = [use]  # which is let go as soon as it is told

        def take(slope: Tensor) -> None:
            told = waiting.pop()
            for parameter, each in told.gradients(slope.detach()):
                if self._found is not None and parameter in self._found:
                    self._check_rows(told.layer, each.shape[0])
                    self._found[parameter].append(each)

        end.register_hook(take)  # type: ignore[no-untyped-call]

    def _check_rows(self, layer: nn.Module, rows: int) -> None:
        if rows != self._samples:
            raise ConfigError(
                f"DP-SGD cannot train layer {self._names[layer]!r}, {type(layer).__name__}, which "
                f"sees {rows} rows for {self._samples} samples: expected a first axis of samples "
                "in all that it is given"
            )


def _leaves(value: Any) -> bool:
    """Whether a value is on the way back, and no parameter, by which a tied weight is known."""
    return isinstance(value, Tensor) and not isinstance(value, nn.Parameter)


def _versions(inputs: tuple[Any, ...]) -> tuple[int, ...]:
    """How often each tensor was written into; a parameter is put back by `restored`."""
    return tuple(each._version for each in inputs if _leaves(each))


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
