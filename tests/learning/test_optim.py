"""Optimisers: torch's own, to the bit, without an import that `torch.compile` alone needs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fedkd.config import OPTIMISERS, Optimisation
from fedkd.learning import optim

Build = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def fitted(build: Build) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Parameters and the optimiser's state after five steps on fixed inputs."""
    draw = torch.Generator().manual_seed(3)
    weights = nn.Parameter(torch.randn(4, 3, generator=draw))
    bias = nn.Parameter(torch.randn(3, generator=draw))
    optimiser = build([weights, bias])
    for _ in range(5):
        optimiser.zero_grad()
        torch.tanh(torch.randn(6, 4, generator=draw) @ weights + bias).square().sum().backward()
        optimiser.step()
    return [weights.detach(), bias.detach()], optim.pack(optimiser)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_steps_and_state_are_those_of_torch(name: str) -> None:
    kind = getattr(torch.optim, OPTIMISERS[name])
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    how = Optimisation(optimiser=name, learning_rate=0.02, weight_decay=0.1)
    own, state = fitted(lambda parameters: optim.build(parameters, how))
    theirs, their_state = fitted(lambda p: kind(p, lr=0.02, weight_decay=0.1, **momentum))
    assert all(map(torch.equal, own, theirs))
    assert state.keys() == their_state.keys()
    assert state
    assert all(torch.equal(state[key], their_state[key]) for key in state)


def test_parameters_may_be_in_groups_and_a_step_may_have_a_closure() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimiser = optim.eager(torch.optim.SGD)([{"params": [weight], "lr": 0.5}])

    def loss() -> float:
        optimiser.zero_grad()
        (value := weight.square().sum()).backward()
        return value.item()

    assert optimiser.step(loss) == 2.0
    assert weight.tolist() == [0.0, 0.0]
    assert weight.requires_grad


def test_who_looks_on_is_called_before_and_after_each_step() -> None:
    """Audits read noisy gradients so."""
    weight, said = nn.Parameter(torch.ones(1)), list[float]()
    optimiser = optim.build([weight], Optimisation(learning_rate=1.0, momentum=0.0))
    optimiser.register_step_pre_hook(lambda *_: said.append(weight.item()))
    optimiser.register_step_post_hook(lambda *_: said.append(weight.item()))
    for _ in range(2):
        weight.grad = torch.ones(1)
        optimiser.step()
    assert said == [1, 0, 0, -1]
