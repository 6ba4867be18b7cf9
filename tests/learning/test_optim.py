"""Optimisers: torch's own, to the bit, without an import that `torch.compile` alone needs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
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


def test_a_simulation_imports_neither_the_compiler_nor_libraries_that_it_has_no_use_for(
    tmp_path: Path,
) -> None:
    data = tiny.write_rows(tmp_path / "rows.npz", samples=60)
    config = tiny.write_config(tmp_path / "tiny.toml", data, {"rounds": 1, "data.public.size": 20})
    arguments = ["fedkd", "simulate", str(config), "--out", str(tmp_path / "run")]
    unused = "dp_accounting opacus pandas ray scipy sklearn sympy torch._dynamo torchmetrics "
    unused += "torchvision transformers"
    script = (
        f"import sys; sys.argv = {arguments!r}\n"
        "from fedkd.cli import main\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        f"found = set({unused.split()!r}) & sys.modules.keys()\n"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
