"""Gradients per sample of torch's LSTM and GRU.

In each step a layer adds W x_t + b and U h_{t-1} + c to its gates. A sample's gradient of W is the
sum over steps of the gates' slopes times x_t, that of U the same with h_{t-1}: see `recurrence`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.errors import ConfigError
from fedkd.learning.dp.forms import products
from fedkd.learning.dp.recurrence import GRUSteps, LSTMSteps
from fedkd.privacy.gradients import Built, Gradients

Recurrent = nn.LSTM | nn.GRU
Note = Callable[[Tensor, "Pass"], None]


def serves(layer: nn.Module) -> bool:
    """Whether a layer is one whose gradients are found here: torch's own, not one made of it."""
    if not isinstance(layer, nn.LSTM | nn.GRU) or type(layer) not in (nn.LSTM, nn.GRU):
        return False
    return not layer.proj_size and not (layer.dropout and layer.num_layers > 1)


@dataclass(frozen=True, eq=False, slots=True)
class Pass:
    """What one direction of one layer did to a batch: N samples, T steps, H states, G gates.

    Attributes:
        layer: of whom.
        suffix: of its parameters' names, such as `_l0_reverse`.
        x: inputs (T, N, D).
        gates: what the inputs add to the gates, (T, N, G).
        before: states (T, N, H) before each step.
    """

    layer: Recurrent
    suffix: str
    x: Tensor
    gates: Tensor
    before: Tensor

    def gradients(self, slope: Tensor) -> Iterator[tuple[Tensor | None, Gradients]]:
        """Each parameter and its gradients for each sample, from the slope of the gates."""
        recurring = self._from_states(slope)
        found: dict[str, Gradients] = {
            "weight_ih": products(slope.transpose(0, 1), self.x.transpose(0, 1)),
            "weight_hh": products(recurring.transpose(0, 1), self.before.transpose(0, 1)),
            "bias_ih": Built(slope.sum(dim=0)),
            "bias_hh": Built(recurring.sum(dim=0)),
        }
        for name, gradients in found.items():
            yield getattr(self.layer, name + self.suffix, None), gradients

    def _from_states(self, entering: Tensor) -> Tensor:
        """Slopes (T, N, G) of U h + c: a GRU's last gate takes its part of it times the first."""
        if isinstance(self.layer, nn.LSTM):
            return entering
        size = self.layer.hidden_size
        _, weight, *biases = _weights(self.layer, self.suffix)
        bias = biases[1][:size] if biases else None
        reset = torch.sigmoid(self.gates[..., :size] + F.linear(self.before, weight[:size], bias))
        return torch.cat([entering[..., : 2 * size], entering[..., 2 * size :] * reset], dim=-1)


def forward(layer: Recurrent, note: Note, x: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
    """What `layer(x, hx)` gives, with no way back to its parameters.

    Args:
        layer: one that `serves`.
        note: is told of each layer and direction, and of its gates, where the way back ends.
        x: inputs (N, T, D), or (T, N, D) unless `batch_first`.
        hx: states at first, as the layer takes them.

    Raises:
        ConfigError: a packed sequence, or one without an axis of samples.
    """
    if not isinstance(x, Tensor) or x.dim() != 3:
        what = f"inputs of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ConfigError(
            f"DP-SGD cannot train {type(layer).__name__} on {what}: expected padded sequences of "
            "numbers, (N, L, D)"
        )
    states = x.transpose(0, 1) if layer.batch_first else x
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    last: list[tuple[Tensor, ...]] = []
    for number in range(layer.num_layers):
        ways = []
        for back, direction in enumerate(directions):
            entered = states.flip(0) if back else states
            first = _first(layer, hx, len(last), entered)
            gone, *after = _direction(layer, f"_l{number}{direction}", note, entered, first)
            ways.append(gone.flip(0) if back else gone)
            last.append(tuple(after))
        states = torch.cat(ways, dim=-1)
    ends = tuple(torch.stack(each) for each in zip(*last, strict=True))
    output = states.transpose(0, 1) if layer.batch_first else states
    return output, ends if isinstance(layer, nn.LSTM) else ends[0]


def _direction(
    layer: Recurrent, suffix: str, note: Note, x: Tensor, first: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """States (T, N, H) of one direction of one layer, and the last ones, (N, H) each."""
    entering, recurrent, *biases = _weights(layer, suffix)
    gates = F.linear(x, entering, biases[0] if biases else None)
    if not gates.requires_grad:
        gates.requires_grad_()
    steps: Any = LSTMSteps if isinstance(layer, nn.LSTM) else GRUSteps
    states, *after = steps.apply(gates, recurrent, biases[1] if biases else None, *first)
    before = torch.cat([first[0][None], states[:-1]]).detach()
    note(gates, Pass(layer, suffix, x.detach(), gates.detach(), before))
    return states, *after


def _first(layer: Recurrent, hx: Any, place: int, x: Tensor) -> tuple[Tensor, ...]:
    """The states before the first step of one direction of one layer, (N, H) each."""
    if hx is None:
        zeros = x.new_zeros(x.shape[1], layer.hidden_size)
        return (zeros, zeros) if isinstance(layer, nn.LSTM) else (zeros,)
    given = hx if isinstance(layer, nn.LSTM) else (hx,)
    return tuple(each[place] for each in given)


def _weights(layer: Recurrent, suffix: str) -> list[Tensor]:
    """W, U and, where there are any, b and c: without a way back to them."""
    names = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if layer.bias else ()))
    return [getattr(layer, name + suffix).detach() for name in names]
