"""An LSTM's and a GRU's steps on gates that inputs have been added to, and the way back to them.

The way back that torch makes of these steps tells slopes of inputs and of weights, not of gates. So
it is written out: Hochreiter & Schmidhuber 1997; Cho et al. 2014, arXiv:1406.1078. All tensors have
time first: gates (T, N, G), states (T, N, H), weights U (G, H) and c (G,) of the states before.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


class LSTMSteps(Function):
    """Gates, U, c and what was before, (N, H) of both kinds: states, and the last of both kinds."""

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The steps."""
        size = weight.shape[1]
        states, cells = (gates.new_empty(len(gates) + 1, *state.shape) for _ in range(2))
        states[0], cells[0] = state, cell
        acted = torch.empty_like(gates)
        for step, given in enumerate(gates):
            now = acted[step]
            torch.add(given, F.linear(states[step], weight, bias), out=now)
            new = now[:, 2 * size : 3 * size].tanh()
            now.sigmoid_()
            now[:, 2 * size : 3 * size] = new
            enters, stays, _, shows = now.chunk(4, dim=1)
            torch.addcmul(enters * new, stays, cells[step], out=cells[step + 1])
            torch.mul(shows, cells[step + 1].tanh(), out=states[step + 1])
        ctx.save_for_backward(acted, cells, weight)
        return states[1:], states[-1].clone(), cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        """The slopes of gates, and of what was before."""
        acted, cells, weight = ctx.saved_tensors
        along, state, cell = slopes
        entering = torch.empty_like(acted)
        for step in reversed(range(len(acted))):
            enters, stays, new, shows = acted[step].chunk(4, dim=1)
            out = entering[step].chunk(4, dim=1)
            state = state + along[step]
            seen = cells[step + 1].tanh()
            cell = torch.addcmul(cell, state * shows, 1 - seen.square())
            torch.mul(cell * new, enters - enters.square(), out=out[0])
            torch.mul(cell * cells[step], stays - stays.square(), out=out[1])
            torch.mul(cell * enters, 1 - new.square(), out=out[2])
            torch.mul(state * seen, shows - shows.square(), out=out[3])
            cell = cell * stays
            state = entering[step] @ weight
        return entering, None, None, state, cell


class GRUSteps(Function):
    """Gates, U, c and the states before, (N, H): states, and the last."""

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The steps."""
        size = weight.shape[1]
        states = gates.new_empty(len(gates) + 1, *state.shape)
        states[0] = state
        acted, recurring = torch.empty_like(gates), gates.new_empty(len(gates), *state.shape)
        for step, given in enumerate(gates):
            before = states[step]
            added = F.linear(before, weight, bias)
            now = acted[step]
            torch.add(given[:, : 2 * size], added[:, : 2 * size], out=now[:, : 2 * size])
            reset, stays = now[:, : 2 * size].sigmoid_().chunk(2, dim=1)
            recurring[step] = added[:, 2 * size :]
            new = torch.addcmul(given[:, 2 * size :], reset, recurring[step]).tanh_()
            now[:, 2 * size :] = new
            torch.lerp(new, before, stays, out=states[step + 1])
        ctx.save_for_backward(acted, recurring, states, weight)
        return states[1:], states[-1].clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        """The slopes of gates, and of the states before."""
        acted, recurring, states, weight = ctx.saved_tensors
        along, state = slopes
        entering = torch.empty_like(acted)
        for step in reversed(range(len(acted))):
            reset, stays, new = acted[step].chunk(3, dim=1)
            out = entering[step].chunk(3, dim=1)
            state = state + along[step]
            torch.mul(state * (1 - stays), 1 - new.square(), out=out[2])
            torch.mul(state * (states[step] - new), stays - stays.square(), out=out[1])
            torch.mul(out[2] * recurring[step], reset - reset.square(), out=out[0])
            onto = torch.cat([out[0], out[1], out[2] * reset], dim=1)
            state = torch.addmm(state * stays, onto, weight)
        return entering, None, None, state
