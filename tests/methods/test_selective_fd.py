"""Selective-FD: who answers what, what is heard, and the density that decides."""

import math
from typing import Any

import pytest
import torch
from federations import STILL, Federation, federation, generator, protected, tensors

from fedkd import methods
from fedkd.config import Robust
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.exchange.messages import Broadcast
from fedkd.learning import density
from fedkd.methods.core import protection
from fedkd.methods.unlike.selective_fd import selected


def test_the_density_ratio_is_the_minimum_of_kulsif() -> None:
    draws = generator(0)
    own, noise = torch.rand(6, 2, generator=draws) / 3, torch.rand(9, 2, generator=draws)
    centres, width, penalty = torch.cat([own, noise]).double(), 0.4, 0.05
    kernel = (-torch.cdist(centres, centres).square() / (2 * width**2)).exp()
    mine, theirs = kernel[:6], kernel[6:]
    # By hand: r = kernel c, with the gradient of the objective by c set to 0.
    left = theirs.T @ theirs / 9 + penalty * kernel
    c = torch.linalg.lstsq(left, mine.mean(dim=0), driver="gelsd").solution
    places = torch.rand(20, 2, generator=draws).double()
    expected = (-torch.cdist(places, centres).square() / (2 * width**2)).exp() @ c
    found = density.ratio(own, noise, places, width=width, penalty=penalty)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    there, away = density.ratio(
        own, noise, torch.tensor([[0.16, 0.16], [0.9, 0.9]]), width=width, penalty=penalty
    )
    assert there > 2 > 0.5 > away


def test_the_server_hears_means_of_who_answers_that_are_sure() -> None:
    sure, other, even = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1 / 3] * 3
    answers = torch.tensor([[sure, sure, even, sure, sure], [other, sure, even, other, other]])
    known = torch.tensor([[True, True, True, True, False], [False, True, True, True, False]])
    mean, heard = selected(answers, known, most=0.5)
    torch.testing.assert_close(
        mean, torch.tensor([sure, sure, even, [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    )
    assert heard.tolist() == [True, True, False, False, False]
    assert selected(answers, known, most=math.log(2) / math.log(3) + 1e-6)[1][3]


def split(**changes: Any) -> Federation:
    """Client 0 has records of class 0 alone, client 1 of class 2; proxies are of all."""
    fed = federation(
        {"name": "selective-fd", "student": {"epochs": 20}}, sizes=(90, 90), count=2, **changes
    )
    for client, kept in ((0, 0), (1, 2)):
        data = fed.data[client]
        fed.data[client] = Samples(data.x, data.y).subset((data.y == kept).nonzero()[:, 0])
    return fed


def test_clients_answer_what_is_like_their_records_and_nothing_of_the_rest_leaves() -> None:
    fed = split()
    brightest = fed.setting.proxy.argmax(dim=1)
    for client, own in ((0, [0]), (1, [2, 3, 4])):  # `samples` lights a third of five columns
        sent = tensors(fed.ask(client, 1, fed.begin()))
        mine = torch.isin(brightest, torch.tensor(own))
        assert sent["known"][mine].float().mean() > 0.5
        assert sent["known"][~mine].float().mean() < 0.2
        assert not sent["probabilities"][~sent["known"]].any()
        assert sent["probabilities"][sent["known"]].sum(dim=1).min() > 0.99


def test_a_client_learns_from_what_was_heard_and_runs_where_nothing_was() -> None:
    fed = split()
    rows = len(fed.setting.proxy)
    aggregate = torch.eye(3)[torch.ones(rows, dtype=torch.long)].half()
    answers = []
    for heard in (True, False):
        told = {"aggregate": aggregate, "heard": torch.full((rows,), heard)}
        fed = split(training=STILL)
        answers.append(tensors(fed.ask(0, 2, Broadcast(common=told)))["probabilities"])
    assert answers[0][:, 1].sum() > answers[1][:, 1].sum()
    nobody = {
        c: {"known": torch.zeros(rows, dtype=torch.bool), "probabilities": torch.zeros(rows, 3)}
        for c in (0, 1)
    }
    assert not fed.method.server(fed.server_context(), nobody).common["heard"].any()


def test_what_it_cannot_run_is_refused_in_a_line() -> None:
    fed = federation("selective-fd")
    with pytest.raises(ConfigError, match="'selective-fd' cannot run under 'record': which proxy"):
        protection.check(fed.method, protected(fed.setting))
    experiment = fed.setting.experiment.model_copy(update={"robust": Robust(answers="median")})
    fed.setting.__dict__["experiment"] = experiment
    with pytest.raises(ConfigError, match="method 'selective-fd' combines no answers"):
        methods.check_rules(fed.method, fed.setting)
