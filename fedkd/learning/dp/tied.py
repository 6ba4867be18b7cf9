"""Gradients per sample of a layer whose weight another layer has too, by which both are counted."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.models.text.tied import TiedLinear


@dataclass(frozen=True, eq=False, slots=True)
class TiedUse:
    """What a layer did to states (N, K, D)."""

    layer: TiedLinear
    weight: Tensor
    states: Tensor
    end: Tensor
    """Zeros (N, K, V), added to what it gave; its gradient is that of what it gave."""

    def gradients(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each trainable parameter p and its gradient for each sample, (N, *shape_p)."""
        slopes = torch.zeros_like(self.end) if self.end.grad is None else self.end.grad
        # A frozen weight came in as a root of the way back, which is nobody's parameter.
        if isinstance(self.weight, nn.Parameter) and self.weight.requires_grad:
            yield self.weight, slopes.transpose(1, 2) @ self.states
        if self.layer.bias.requires_grad:
            yield self.layer.bias, slopes.sum(dim=1)


def forward(layer: TiedLinear, uses: list[TiedUse], states: Tensor, weight: Tensor) -> Tensor:
    """What `layer(states, weight)` gives, with a way back to the states alone; noted in `uses`."""
    said = F.linear(states, weight.detach(), layer.bias.detach())
    end = torch.zeros_like(said, requires_grad=True)
    uses.append(TiedUse(layer, weight, states.detach(), end))
    return said + end
