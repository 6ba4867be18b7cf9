"""FD: two clients' round by hand, whose word counts, and what a loud one can do."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from federations import CLASSES, ROWS, SMALL, STILL, WIDE, Federation, federation, samples, tensors
from torch import Tensor, nn

from fedkd import methods
from fedkd.config import Privacy, Robust
from fedkd.errors import ConfigError
from fedkd.exchange.gate import release
from fedkd.exchange.messages import Broadcast
from fedkd.learning.evaluate import evaluating
from fedkd.methods.core import protection
from fedkd.methods.unlike.fd import of_others, taught_by_class


def built(classes: list[list[int]], **changes: Any) -> Federation:
    """A client for each list; it keeps the samples of these classes."""
    method = {"name": "fd", "student": {"epochs": 1}, **changes.pop("method", {})}
    changes = {"models": [SMALL, WIDE], "rounds": 3, "count": len(classes), **changes}
    fed = federation(method, ROWS, (20,) * len(classes), **changes)
    for client, held in enumerate(classes):
        data = samples(30, ROWS, 10 + client)
        fed.data[client] = data.subset(torch.isin(data.y, torch.tensor(held)).nonzero().flatten())
    return fed


def word(fed: Federation, client: int) -> Tensor:
    """A client's mean softmax of each class, by the definition; zeros where it has no record."""
    teacher, data = fed.client_context(client).teacher, fed.data[client]
    with evaluating(teacher), torch.no_grad():
        p = teacher(data.x).softmax(dim=1)
    rows = [
        p[data.y == c].mean(0) if (data.y == c).any() else torch.zeros(CLASSES) for c in (0, 1, 2)
    ]
    return torch.stack(rows)


def test_a_round_of_two_clients_by_hand() -> None:
    fed = built([[0, 1], [0, 2]])
    broadcast, _ = fed.round(1, fed.begin())
    first, second = word(fed, 0), word(fed, 1)
    told = [broadcast.to("any", client)["means"] for client in (0, 1)]
    nothing = torch.zeros(CLASSES)
    oracle = (
        torch.stack([second[0], nothing, second[2]]),
        torch.stack([first[0], first[1], nothing]),
    )
    for found, expected in zip(told, oracle, strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-3)  # it was float16
    absent = broadcast.to("any", 7)["means"]  # who was not asked hears all that hold a class
    oracle_of_all = torch.stack([(first[0] + second[0]) / 2, first[1], second[2]])
    torch.testing.assert_close(absent, oracle_of_all, rtol=2e-3, atol=1e-3)


def test_nobody_hears_its_own_word() -> None:
    means = torch.rand(4, CLASSES, CLASSES, generator=torch.Generator().manual_seed(1))
    held = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1]]) > 0
    means = means * held[:, :, None]
    found = of_others(means, held)
    for client in range(4):
        for c in range(CLASSES):
            others = [means[k, c] for k in range(4) if k != client and held[k, c]]
            expected = torch.stack(others).mean(0) if others else torch.zeros(CLASSES)
            torch.testing.assert_close(found[client, c], expected)


def test_the_loss_is_cross_entropy_with_the_label_and_with_what_others_say() -> None:
    model, data = nn.Linear(5, CLASSES), samples(12, ROWS, 3)
    told = torch.tensor([[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.0, 0.0, 0.0]])
    found = taught_by_class(model, data.x, data.y, told=told, weight=0.7)
    log_p = F.log_softmax(model(data.x), dim=1)
    for i, c in enumerate(data.y.tolist()):
        expected = -log_p[i, c] - 0.7 * sum(told[c, k] * log_p[i, k] for k in range(CLASSES))
        torch.testing.assert_close(found[i], expected)


def test_what_is_told_draws_answers_to_it_and_no_further() -> None:
    def far(weight: float) -> float:
        fed = built(
            [[0, 1, 2]] * 2,
            method={"weight": weight},
            training={"epochs": 20, "learning_rate": 0.1},
        )
        even = Broadcast({"means": torch.full((CLASSES, CLASSES), 1 / CLASSES)})
        fed.ask(0, 1, even)
        return float((word(fed, 0) - 1 / CLASSES).abs().mean())

    assert far(20.0) < 0.5 * far(0.0)


def test_whoever_shouts_is_heard_as_one() -> None:
    fed = built([[0, 1, 2]] * 3, training=STILL)
    uploads = {c: fed.wire(c, fed.ask(c, 1, Broadcast())) for c in range(3)}
    uploads[0]["means"] = torch.ones(CLASSES, CLASSES).half()  # in range, each row three times one
    told = fed.method.server(fed.server_context(), uploads).to("any", 1)["means"]
    even = torch.full((CLASSES, CLASSES), 1 / CLASSES)
    expected = (even + uploads[2]["means"].float()) / 2
    torch.testing.assert_close(told, expected, rtol=2e-3, atol=1e-3)


def test_under_a_rule_all_hear_the_same_and_a_liar_does_not_decide() -> None:
    fed = built([[0, 1, 2]] * 3, training=STILL)
    experiment = fed.setting.experiment.model_copy(update={"robust": Robust(answers="median")})
    fed.setting = replace(fed.setting, experiment=experiment)
    uploads = {c: fed.wire(c, fed.ask(c, 1, Broadcast())) for c in range(3)}
    uploads[0]["means"] = torch.eye(CLASSES).roll(1, dims=1).half()
    broadcast = fed.method.server(fed.server_context(), uploads)
    assert not broadcast.by_client
    honest = (uploads[1]["means"] + uploads[2]["means"]).float() / 2
    assert (broadcast.common["means"] - honest).abs().max() < 0.2


def test_the_receipts_say_what_means_are_and_no_budget_covers_them() -> None:
    fed = built([[0, 1, 2]] * 2)
    receipts = {r.field: r.provenance for r in release(fed.ask(0, 1, Broadcast()))}
    assert receipts["means"] == "release: mean answers of each class, of its records, no DP"
    assert receipts["logits"] == "post-processing of teacher training, no DP"
    assert set(tensors(fed.ask(0, 1, Broadcast()))) == {"means", "logits"}


@pytest.mark.parametrize("name", ["fd", "fml", "fedgh", "fedtgp"])
def test_what_dp_does_not_cover_is_refused_in_one_line(name: str) -> None:
    fed = federation(name)
    privacy = Privacy(unit="record", epsilon=8.0)
    experiment = fed.setting.experiment.model_copy(update={"privacy": privacy})
    with pytest.raises(ConfigError, match=f"^method '{name}' cannot run under 'record': [^\n]*$"):
        protection.check(fed.method, replace(fed.setting, experiment=experiment))


@pytest.mark.parametrize("name", ["fd", "lg-fedavg", "fedgh", "fedtgp"])
def test_what_a_sum_is_not_enough_for_is_refused_in_one_line(name: str) -> None:
    experiment = federation(name).setting.experiment
    privacy = Privacy(secure_aggregation=True)
    with pytest.raises(ConfigError, match="its server part needs each client's answer") as caught:
        methods.resolve(experiment.model_copy(update={"privacy": privacy}))
    assert "\n" not in str(caught.value)
