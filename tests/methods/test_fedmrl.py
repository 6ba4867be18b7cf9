"""FedMRL: which features each head sees, what stays at home, and what is scored as the client's."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from federations import Federation, equal, federation, generator, protected, snapshot, tensors
from torch import nn

from fedkd.errors import ConfigError
from fedkd.exchange.messages import group
from fedkd.jobs.simulate import simulate
from fedkd.learning import evaluate
from fedkd.methods.core import protection
from fedkd.methods.unlike.fedmrl import Mixed, nested_loss

SHARED, OWN = {"name": "mlp", "hidden": [6]}, {"name": "mlp", "hidden": [9]}


def built(**changes: Any) -> Federation:
    how = {"models": [OWN, {"name": "mlp", "hidden": [5, 8]}], "student": SHARED, **changes}
    return federation("fedmrl", rounds=2, **how)


def net(width: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 3))


def test_the_loss_is_of_nested_features_by_the_formula() -> None:
    shared, own = net(4, 0), net(7, 1)
    mixed = Mixed(shared, own, generator(2))
    x, y = torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])
    small, large = shared[:2](x), own[:2](x)
    mix = torch.cat([small, large], 1) @ mixed.match.weight.T + mixed.match.bias
    paper = F.cross_entropy(own[2](mix), y, reduction="none")
    paper = paper + F.cross_entropy(shared[2](mix[:, :4]), y, reduction="none")
    torch.testing.assert_close(nested_loss(mixed, x, y, alone=0.0), paper)
    ours = paper + 0.5 * F.cross_entropy(shared(x), y, reduction="none")
    torch.testing.assert_close(nested_loss(mixed, x, y, alone=0.5), ours)
    torch.testing.assert_close(mixed(x), own[2](mix))


def test_the_shared_model_alone_travels_and_the_rest_goes_on_at_home() -> None:
    fed = built()
    broadcast = fed.begin()
    sent = tensors(fed.ask(0, 1, broadcast))
    assert set(sent) == {"count", *(f"model/{name}" for name in snapshot(fed.student))}
    first = {name: each.clone() for name, each in group("personal", fed.states[0]).items()}
    assert {name.partition(".")[0] for name in first} == {"own", "match"}
    fed.ask(0, 2, broadcast)
    again = group("personal", fed.states[0])
    assert not equal(first, dict(again))
    fresh = built()
    fresh.ask(0, 2, fresh.begin())  # without what the first round left
    assert not equal(dict(group("personal", fresh.states[0])), dict(again))


def test_what_is_scored_as_the_clients_is_the_three_together(rows: Path, tmp_path: Path) -> None:
    how = {
        "method.name": "fedmrl",
        "clients.models": [OWN],
        "student.model": SHARED,
        "clients.test_share": 0.2,
    }
    summary = simulate(tiny.experiment(rows, how), tmp_path / "run", tiny.Quiet())
    assert summary["student"]["accuracy"] > 0.5
    [*_, last] = tiny.rounds(tmp_path / "run")
    assert last["personal"]["mean_accuracy"] > 0.5
    assert last["teachers"] is not None


def test_own_model_is_the_mix_and_answers_as_it() -> None:
    fed = built()
    ctx = fed.client_context(0)
    fed.method.client(ctx, fed.begin().common)
    assert ctx.own_model is ctx.personal
    assert not ctx.has_teacher
    answers = evaluate.answers(ctx.own_model, fed.test.x)
    assert (answers.argmax(dim=1) == fed.test.y).float().mean() > 0.5


def test_what_it_cannot_run_is_refused_in_a_line() -> None:
    wide = built(student={"name": "mlp", "hidden": [40]})
    with pytest.raises(ConfigError, match=r"has 40 features and clients.models .* has 9: method"):
        wide.method.check(wide.setting)
    fed = built()
    with pytest.raises(ConfigError, match="'fedmrl' cannot run under 'record': two models and a"):
        protection.check(fed.method, protected(fed.setting))
