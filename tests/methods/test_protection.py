"""The server's noise under the client units, against the definition of its sensitivity."""

from dataclasses import replace

import pytest
import torch
from federations import federation

from fedkd.config import Privacy


class Free:
    """An allowance that allows everything, and looks at what it is asked for."""

    def __init__(self, steps):
        self.steps = steps

    def spend(self, event, **_):
        assert (event.unit, event.adjacency) == ("client", "replace-one")
        assert (event.noise_multiplier, event.steps) == (2.0, self.steps)


def server(unit, rows, steps):
    fed = federation({"name": "dsfl", "public_per_round": rows}, public={"size": rows})
    privacy = Privacy(unit=unit, epsilon=8.0, noise_multiplier=2.0)
    experiment = fed.setting.experiment.model_copy(update={"privacy": privacy})
    ctx = fed.server_context()
    ctx.setting = replace(fed.setting, experiment=experiment)
    ctx.allowance = Free(steps)
    return ctx


def test_the_mean_has_the_noise_that_one_changed_client_needs():
    rows, classes, clients = 7, 3, 5
    ctx = server("client-logits", rows, steps=1)
    answers = torch.zeros(clients, rows, classes)
    answers[:, :, 0] = 1
    other = answers.clone()
    other[0] = torch.eye(classes)[1]  # as different as one client can be
    moved = torch.linalg.vector_norm(other.mean(dim=0) - answers.mean(dim=0))
    draws = torch.stack([ctx.protect(answers)[0] for _ in range(2000)]) - answers.mean(dim=0)
    assert float(draws.std()) == pytest.approx(2.0 * float(moved), rel=0.02)
    # Whatever a client sends, it cannot move the mean further: with noise that cannot be seen.
    ctx.setting.experiment.privacy.__dict__["noise_multiplier"] = 1e-9
    ctx.allowance.spend = lambda event, **_: None
    wild = answers.clone()
    wild[0] = 1e6 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))
    shift = torch.linalg.vector_norm(ctx.protect(wild) - ctx.protect(answers))
    assert shift <= moved * (1 + 1e-4)


def test_votes_have_noise_for_two_counts_that_one_client_moves():
    rows, clients = 4000, 3
    ctx = server("client-votes", rows, steps=rows)
    answers = torch.zeros(clients, rows, 2)
    answers[:, :, 0] = 1
    [winners] = ctx.protect(answers)
    assert winners.sum(dim=1).eq(1).all()
    # Three votes against none, noise of standard deviation 2 sqrt(2) on both: a difference of 4.
    expected = float(torch.special.ndtr(torch.tensor(3 / 4.0)))
    assert float(winners[:, 0].mean()) == pytest.approx(expected, abs=0.03)
