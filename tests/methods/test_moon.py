"""MOON: the contrast by its formula, whom a client compares itself with, and when."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from federations import IMAGES, SMALL, STILL, Federation, equal, federation, protected, tensors
from torch import Tensor, nn

from fedkd import methods
from fedkd.errors import ConfigError
from fedkd.exchange.messages import group
from fedkd.learning.teacher_statistics import with_features
from fedkd.methods.core import protection
from fedkd.methods.equal.moon import contrastive_loss


def net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def test_the_loss_and_its_gradient_are_the_papers_with_the_other_two_held() -> None:
    model, received, last = net(0), net(1), net(2)
    x, y = torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))

    z, a, b = (with_features(each, x)[1] for each in (model, received.eval(), last.eval()))
    near, far = (torch.exp(cosine(z, each.detach()) / 0.5) for each in (a, b))
    paper = F.cross_entropy(model(x), y, reduction="none") - 2.0 * torch.log(near / (near + far))
    found = contrastive_loss(model, x, y, held=[received, last], mu=2.0, temperature=0.5)
    torch.testing.assert_close(found, paper)
    own = list(model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), own), torch.autograd.grad(paper.sum(), own)
    )
    found = contrastive_loss(model, x, y, held=[received, last], mu=2.0, temperature=0.5)
    held = [*received.parameters(), *last.parameters()]
    assert torch.autograd.grad(found.sum(), held, allow_unused=True) == (None,) * len(held)


def second(method: dict[str, Any] | str, **changes: Any) -> dict[str, Tensor]:
    """What client 0 sends in its second round."""
    fed = federation(method, IMAGES, rounds=2, **changes)
    broadcast, _ = fed.round(1, fed.begin())
    return group("model", tensors(fed.ask(0, 2, broadcast)))


def test_without_mu_it_is_fedavg_and_with_it_from_the_second_round_on_not() -> None:
    assert equal(second({"name": "moon", "mu": 0}), second("fedavg"))
    assert not equal(second("moon"), second("fedavg"))
    first = [federation(name, IMAGES) for name in ("moon", "fedavg")]
    uploads = [tensors(fed.ask(0, 1, fed.begin())) for fed in first]
    assert equal(*uploads)


def test_a_client_is_drawn_to_the_servers_model_and_away_from_its_own_last_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fed = federation("moon", IMAGES, rounds=2)
    broadcast, _ = fed.round(1, fed.begin())
    last = {name: each.clone() for name, each in group("teacher", fed.states[0]).items()}
    seen: list[tuple[list[dict[str, Tensor]], list[bool]]] = []

    def look(model: nn.Module, x: Tensor, y: Tensor, *, held: list[nn.Module], **_: Any) -> Tensor:
        seen.append(([each.state_dict() for each in held], [each.training for each in held]))
        return F.cross_entropy(model(x), y)

    monkeypatch.setattr("fedkd.methods.equal.moon.contrastive_loss", look)
    fed.ask(0, 2, broadcast)
    (received, own), training = seen[-1]
    assert equal(received, dict(group("model", broadcast.common)))
    assert equal(own, last)
    assert training == [False, False]


def test_what_is_private_goes_on_beside_the_contrast() -> None:
    fed = federation({"name": "moon", "private": ["hidden1"]}, IMAGES, training=STILL, rounds=2)
    broadcast, _ = fed.round(1, fed.begin())
    assert not any("hidden1" in name for name in fed.ask(0, 2, broadcast).values)


def refused(fed: Federation, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        protection.check(fed.method, protected(fed.setting))


def test_it_is_refused_under_dp_and_on_unlike_models_in_a_line() -> None:
    refused(federation("moon", IMAGES), "method 'moon' cannot run under 'record': features of a")
    unlike = {"models": [SMALL, {"name": "mlp", "hidden": [9]}]}
    for name in ("moon", "scaffold", "feddyn"):
        with pytest.raises(ConfigError, match=f"method '{name}' averages models and cannot take"):
            methods.resolve(federation(name, **unlike).setting.experiment)
