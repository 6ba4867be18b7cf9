"""The gradient of every sample: Opacus's, and our own of recurrent layers and of tied weights."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from fedkd.errors import ConfigError
from fedkd.learning.dp import recurrent, tied
from fedkd.learning.dp.restored import restored
from fedkd.models import call
from fedkd.models.text.tied import TiedLinear

Loss = Callable[[Tensor, Tensor], Tensor]
"""Answers (N, *A) and targets (N, ...) to a value per sample (N,), each of its own row alone."""

_CACHE = 2**21  # floats: per-sample gradients that stay in a core's cache are made twice as fast


def at_once(parameters: Iterable[Tensor]) -> int:
    """How many samples a batch has at most, for trainable parameters of that size."""
    size = sum(parameter.numel() for parameter in parameters)
    return max(8, min(256, _CACHE // max(size, 1)))


def has_rule(layer: nn.Module) -> bool:
    """Whether a layer's gradients are found by a rule of our own."""
    return recurrent.serves(layer) or isinstance(layer, TiedLinear)


class PerSample:
    """A model in training mode that tells the gradient of every sample; a context.

    When the context ends, whichever way, the model is in evaluation mode and bears no trace.
    """

    def __init__(self, model: nn.Module) -> None:
        from opacus.grad_sample import GradSampleModule  # takes seconds

        self.parameters = {
            name: value for name, value in model.named_parameters() if value.requires_grad
        }
        self._annotated: list[Any] = list(self.parameters.values())  # Opacus adds attributes
        self.rows = at_once(self._annotated)
        """Samples at a time."""
        self._model = model
        # Summed, or else Opacus multiplies the gradients by the number of samples.
        self._opacus = GradSampleModule(model, loss_reduction="sum")
        self._roots: list[Tensor] = []
        self._ends: list[tuple[nn.Module, Tensor]] = []
        self._layers = list(self._opacus.iterate_submodules(model))
        self._handles = [layer.register_forward_pre_hook(self._root) for layer in self._layers]
        self._uses: list[Any] = []
        """Of layers by our own rules, in this pass: each has an `end` and `gradients`."""
        self._ours = [layer for layer in self._layers if has_rule(layer)]
        for layer in self._layers:
            if isinstance(layer, nn.Embedding):
                self._unhook(layer)
                self._handles.append(layer.register_forward_hook(self._end))
        for layer in self._ours:
            self._unhook(layer)
            rule: Any = tied if isinstance(layer, TiedLinear) else recurrent
            layer.forward = partial(rule.forward, layer, self._uses)
        # What a layer hands on is what torch's backward hooks look at: nobody may write into it.
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
        self._opacus.cleanup()
        for layer in self._ours:
            del layer.forward
        for module in self._inplace:
            module.inplace = True
        for module in self._model.modules():
            for name in ("activations", "max_batch_len", "ft_compute_sample_grad"):
                module.__dict__.pop(name, None)
        for parameter in self.parameters.values():
            parameter.grad = None
        self._model.eval()

    def gradients(self, x: Tensor, y: Tensor, loss: Loss) -> list[Tensor]:
        """The gradient of each sample's loss by each trainable parameter p: (N, *shape_p).

        Whatever the model's forward pass writes into its parameters and buffers is put back.
        """
        self._forget()
        with restored(self._model):
            self._pass(x, y, loss)
        for parameter, gradient in (own for use in self._uses for own in use.gradients()):
            found = parameter.grad_sample
            parameter.grad_sample = gradient if found is None else found + gradient
        gradients = [
            parameter.new_zeros(len(x), *parameter.shape)  # the loss does not depend on it
            if parameter.grad_sample is None
            else parameter.grad_sample
            for parameter in self._annotated
        ]
        self._forget()
        return gradients

    def _pass(self, x: Tensor, y: Tensor, loss: Loss) -> None:
        """Forward and backward, by which Opacus leaves the gradients at the parameters."""
        losses = loss(call.answer(self._model, x), y)
        # The sum leaves each sample's gradient as it is. Only the way to the layers' inputs is
        # gone, never to p.grad: that saves a third of the time, and no raw gradient ever exists.
        leaves = [*self._roots, *(end for _, end in self._ends), *(use.end for use in self._uses)]
        losses.sum().backward(inputs=leaves)  # type: ignore[no-untyped-call]
        for layer, end in reversed(self._ends):
            slope = torch.zeros_like(end) if end.grad is None else end.grad
            self._opacus.capture_backprops_hook(
                layer, (), (slope,), loss_reduction="sum", batch_first=True
            )

    def _root(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Let a layer's input require a gradient, which Opacus's backward hook needs to be called.

        Without, torch calls the hook too, but with a warning.
        """
        if not inputs:  # of those given by keyword no hook of Opacus knows
            name = next(name for name, each in self._model.named_modules() if each is layer)
            raise ConfigError(
                f"DP-SGD cannot train layer {name!r}, {type(layer).__name__}, which is called by "
                "keyword, as in layer(input=x); call it by position: layer(x)"
            )
        return tuple(self._rooted(value) for value in inputs)

    def _rooted(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.requires_grad or not value.is_floating_point():
            return value
        root = value.detach().requires_grad_()
        self._roots.append(root)
        return root

    def _unhook(self, layer: nn.Module) -> None:
        """Let Opacus not be called when the way back passes a layer; forward, of ours alone."""
        for handle in self._opacus.autograd_grad_sample_hooks:
            if handle.id in layer._backward_hooks or (
                layer in self._ours and handle.id in layer._forward_hooks
            ):
                handle.remove()

    def _end(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """End the way back at what a layer gives, since what enters it has no gradient: indices.

        torch calls its backward hook too, but with a warning; so Opacus's is called by hand.
        """
        end = output.detach().requires_grad_()
        self._ends.append((layer, end))
        if (padding := layer.padding_idx) is None:
            return end
        # Padding learns nothing, of which Opacus does not know.
        return torch.where((inputs[0] == padding).unsqueeze(-1), end.detach(), end)

    def _forget(self) -> None:
        """Forget a forward pass: what it left in a layer off the loss's path would pile up."""
        self._roots.clear()
        self._ends.clear()
        self._uses.clear()
        for layer in self._layers:
            layer.__dict__.pop("activations", None)
            layer.__dict__.pop("max_batch_len", None)
        for parameter in self._annotated:
            parameter.__dict__.pop("_current_grad_sample", None)
            parameter.grad_sample, parameter._forward_counter = None, 0
