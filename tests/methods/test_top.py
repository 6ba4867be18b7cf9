"""Answers over many classes: the likeliest alone cross the wire, both ways."""

import numpy as np
import pytest
import torch
from federations import CLASSES, SMALL, STILL, WIDE, federation, snapshot, tensors

from fedkd.errors import ConfigError
from fedkd.exchange import likeliest
from fedkd.exchange.messages import Broadcast
from fedkd.jobs.audit import observed

HOW = {"epochs": 2, "batch_size": 8, "learning_rate": 0.05}
SENT = {"fedmd": "logits", "dsfl": "probabilities"}


def ran(name, **chosen):
    method = {"name": name, "student": HOW, "digest": HOW, **chosen}
    return federation(method, models=[SMALL, WIDE], rounds=2)


@pytest.mark.parametrize("name", SENT)
def test_ids_and_values_are_sent_and_the_student_learns_next_to_the_same(name):
    # Two of three classes and the rest say all that three say.
    few, all_of_them = ran(name, top=2), ran(name)
    fields = {f"{SENT[name]}/ids", f"{SENT[name]}/values"}
    assert set(tensors(few.ask(0, 1, few.begin()))) == fields
    students = []
    for fed in (ran(name, top=2), all_of_them):
        broadcast, _ = fed.round(1, fed.begin())
        students.append(snapshot(fed.student))
        fed.round(2, broadcast)
        assert all(torch.isfinite(each).all() for each in fed.student.state_dict().values())
    assert set(students[0]) == set(students[1])
    for key, weight in students[0].items():
        assert torch.allclose(weight, students[1][key], atol=0.05)


@pytest.mark.parametrize("name", SENT)
def test_more_classes_than_there_are_is_refused(name):
    fed = ran(name, top=CLASSES)
    with pytest.raises(ConfigError, match=r"method.top is 3: expected fewer than the 3 numbers"):
        fed.method.check(fed.setting)


def test_of_cut_answers_era_is_that_of_the_answers_with_the_rest_spread_evenly():
    classes, top, temperature = 8, 3, 0.2
    fed = federation(
        {"name": "dsfl", "top": top, "temperature": temperature, "student": STILL},
        outputs=classes,
        public={"size": 5},
    )
    draws = torch.Generator().manual_seed(4)
    answers = {who: 2 * torch.randn(5, classes, generator=draws) for who in range(3)}
    uploads = {who: likeliest.sparse("probabilities", each, top) for who, each in answers.items()}
    cut = []
    for each in answers.values():
        rows = []
        for p in each.double().softmax(dim=-1).numpy():
            named = np.argsort(p)[-top:]
            row = np.full(classes, (1 - p[named].sum()) / (classes - top))
            row[named] = p[named]
            rows.append(row)
        cut.append(rows)
    sharp = np.exp(np.mean(cut, axis=0) / temperature)
    sharp /= sharp.sum(axis=-1, keepdims=True)
    returned = fed.method.server(fed.server_context(), uploads).common
    found = likeliest.dense("aggregate", returned, classes).exp().numpy()
    for row, wanted in zip(found, sharp, strict=True):
        named = np.argsort(wanted)[-top:]
        assert row[named] == pytest.approx(wanted[named], abs=2e-3)
        assert np.delete(row, named) == pytest.approx(
            (1 - wanted[named].sum()) / (classes - top), abs=2e-3
        )


def test_a_client_digests_what_came_back_cut():
    fed = ran("dsfl", top=2)
    size = len(fed.setting.proxy_subset(1000, 1))
    wanted = torch.eye(CLASSES)[torch.arange(size) % CLASSES] * 8
    broadcast = Broadcast(common=likeliest.sparse("aggregate", wanted, 2))
    taught, alone = (fed.ask(0, 2, each) for each in (broadcast, Broadcast()))
    assert not torch.equal(
        tensors(taught)["probabilities/values"], tensors(alone)["probabilities/values"]
    )


@pytest.mark.parametrize("name", SENT)
def test_a_curious_server_reads_what_was_cut(name):
    fed = ran(name, top=2)
    upload = fed.wire(0, fed.ask(0, 1, Broadcast()))
    read = observed.read_logits(upload, fed.setting.task).softmax(dim=-1)
    whole = ran(name)
    said = tensors(whole.ask(0, 1, Broadcast()))[SENT[name]].float()
    wanted = said.softmax(dim=-1) if name == "fedmd" else said
    torch.testing.assert_close(read, wanted, atol=5e-3, rtol=0)
