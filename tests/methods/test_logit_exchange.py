"""FedMD and DS-FL: what the clients' answers become, and on which samples they stand."""

from typing import Any

import pytest
import torch
from federations import CLASSES, SMALL, STILL, WIDE, Federation, federation, tensors
from torch import Tensor

from fedkd.exchange.messages import Broadcast
from fedkd.learning import evaluate

SUBSET = 8
FIT = {"epochs": 250, "batch_size": 8, "optimiser": "adam", "learning_rate": 0.02}
STAY = {"epochs": 1, "optimiser": "sgd", "learning_rate": 1e-12, "momentum": 0.0}
ANSWER = {"fedmd": "logits", "dsfl": "probabilities"}
RETURN = {"fedmd": "consensus", "dsfl": "aggregate"}
METHODS = list(ANSWER)


def built(name: str, digest: dict[str, Any] = STAY, **parameters: Any) -> Federation:
    method = {"name": name, "public_per_round": SUBSET, "digest": digest, **parameters}
    return federation(method, rounds=3, models=[SMALL, WIDE], training=STILL)


def answers(fed: Federation, name: str, client: int, x: Tensor) -> Tensor:
    """What the client's teacher, as it is now, says of `x`."""
    logits = evaluate.answers(fed.client_context(client).teacher, x)
    return logits if name == "fedmd" else logits.softmax(dim=1)


def codes(name: str) -> Tensor:
    """Something else for each sample of a subset, which only its own inputs can explain."""
    one_hot = torch.eye(CLASSES)[torch.arange(SUBSET) % CLASSES]
    return (3 * one_hot if name == "fedmd" else 0.94 * one_hot + 0.02).half()


def gap(fed: Federation, name: str, client: int, round: int) -> float:
    x = fed.setting.proxy_inputs(SUBSET, round)
    return float((answers(fed, name, client, x) - codes(name).float()).abs().mean())


@pytest.mark.parametrize("name", METHODS)
def test_a_client_digests_the_broadcast_on_the_subset_of_the_round_before(name: str) -> None:
    fed = built(name, FIT)
    first, third = (fed.setting.proxy_subset(SUBSET, round).tolist() for round in (1, 3))
    assert first != third != fed.setting.proxy_subset(SUBSET, 2).tolist()
    fed.ask(1, 1, fed.begin())
    before = gap(fed, name, 1, round=2)
    upload = fed.ask(1, 3, Broadcast(common={RETURN[name]: codes(name)}))
    assert gap(fed, name, 1, round=2) < 0.25 * before
    assert gap(fed, name, 1, round=3) > gap(fed, name, 1, round=2) * 2
    # What it answers stands on the subset of its own round.
    expected = answers(fed, name, 1, fed.setting.proxy_inputs(SUBSET, 3))
    torch.testing.assert_close(
        tensors(upload)[ANSWER[name]].float(), expected, atol=2e-3, rtol=2e-3
    )


@pytest.mark.parametrize("name", METHODS)
def test_in_the_first_round_there_is_nothing_to_digest(name: str) -> None:
    fed = built(name, FIT)
    assert fed.begin() == Broadcast()
    untrained = fed.setting.build(
        fed.setting.experiment.client_model(0), purpose="teacher", client=0
    )
    fed.ask(0, 1, Broadcast())
    for key, value in fed.client_context(0).teacher.state_dict().items():
        torch.testing.assert_close(value, untrained.state_dict()[key])


@pytest.mark.parametrize("name", METHODS)
def test_the_server_returns_the_aggregate_of_the_answers(name: str) -> None:
    fed = built(name, student=STAY)
    uploads = {c: fed.wire(c, fed.ask(c, 1, Broadcast())) for c in range(3)}
    returned = fed.method.server(fed.server_context(), uploads)
    sent = torch.stack([upload[ANSWER[name]] for upload in uploads.values()]).double()
    expected = sent.mean(dim=0)
    if name == "dsfl":
        expected = (expected / 0.1).softmax(dim=1)
    assert set(returned.common) == {RETURN[name]}
    found = returned.to("mlp")[RETURN[name]]
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.double(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_the_student_is_distilled_on_the_subset_of_the_round(name: str) -> None:
    fed = built(name, student=FIT)
    planted = codes(name)
    fed.method.server(fed.server_context(round=2), {0: {ANSWER[name]: planted}})
    labels = planted.argmax(dim=1)
    found = evaluate.answers(fed.student, fed.setting.proxy_inputs(SUBSET, 2)).argmax(dim=1)
    assert torch.equal(found, labels)
    other = evaluate.answers(fed.student, fed.setting.proxy_inputs(SUBSET, 1)).argmax(dim=1)
    assert not torch.equal(other, labels)


def test_eras_temperature_is_the_methods_own() -> None:
    planted = torch.tensor([[0.5, 0.3, 0.2]]).repeat(SUBSET, 1).half()
    for temperature, top in ((0.01, 1.0), (1e4, 1 / 3)):
        fed = built("dsfl", student=STAY, temperature=temperature)
        returned = fed.method.server(fed.server_context(), {0: {"probabilities": planted}})
        assert float(returned.common["aggregate"][0, 0]) == pytest.approx(top, abs=1e-3)


def test_probabilities_are_refused_outside_their_range() -> None:
    fed = built("dsfl")
    spec = fed.method.expects(fed.setting, 0)["probabilities"]
    assert (spec.low, spec.high) == (0, 1)


@pytest.mark.parametrize("name", METHODS)
def test_a_subset_as_large_as_the_proxy_set_is_all_of_it(name: str) -> None:
    fed = federation({"name": name, "public_per_round": 30})
    [spec] = fed.method.expects(fed.setting, 0).values()
    assert spec.shape == (30, CLASSES)
    assert torch.equal(fed.setting.proxy_inputs(30, 2), fed.setting.proxy)
    assert torch.equal(fed.setting.proxy_inputs(None, 2), fed.setting.proxy)
