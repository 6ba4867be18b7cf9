"""Hostile clients: what they send in place of their own is let in, or refused, as any answer is."""

import json
from dataclasses import replace

import pytest
import tiny
import torch

from fedkd.errors import FederationError
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate_world


def scaled(_round, _broadcast, uploads):
    """Client 1 turns its answers round."""
    return {1: {**uploads[1], "logits": -2 * uploads[1]["logits"]}}


def run(rows, folder, tamper, changes=None, **how):
    prepared = prepare(tiny.experiment(rows, changes))
    simulate_world(prepared, folder, tamper=tamper, **how)
    return folder


def test_a_hostile_clients_answer_takes_the_place_of_its_own(rows, tmp_path):
    seen = {}

    def tamper(round, broadcast, uploads):
        seen[round] = (broadcast, uploads)
        return scaled(round, broadcast, uploads)

    folder = run(rows, tmp_path / "hostile", tamper)
    assert tiny.failures(folder) == []
    assert [each["participants"] for each in tiny.rounds(folder)] == [[0, 1, 2, 3]] * 2
    assert tiny.student_hash(folder) != tiny.student_hash(run(rows, tmp_path / "honest", None))
    _, uploads = seen[1]
    broadcast, _ = seen[2]
    said = [each["logits"].float() for each in uploads.values()]
    said[1] = (-2 * uploads[1]["logits"]).float()
    expected = torch.stack(said).mean(dim=0)
    torch.testing.assert_close(broadcast.common["consensus"].float(), expected, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (lambda upload: upload | {"logits": upload["logits"] / 0}, "holds NaN or infinity"),
        (lambda upload: upload | {"logits": upload["logits"].double()}, "dtype is not"),
        (lambda upload: upload | {"logits": upload["logits"][:3]}, "shape is not"),
        (lambda upload: upload | {"logits": upload["logits"].bfloat16()}, "the codec carries"),
        (lambda upload: upload | {"more": upload["logits"]}, "other fields"),
    ],
)
def test_what_the_door_refuses_is_a_failure_with_its_reason(rows, tmp_path, changed, reason):
    def tamper(_round, _broadcast, uploads):
        return {2: changed(dict(uploads[2]))}

    folder = run(rows, tmp_path / "run", tamper, {"rounds": 1})
    [(round, client, said)] = tiny.failures(folder)
    assert (round, client) == (1, 2)
    assert reason in said
    assert tiny.rounds(folder)[0]["participants"] == [0, 1, 3]


def test_refused_answers_count_against_the_quorum(rows, tmp_path):
    def tamper(_round, _broadcast, uploads):
        return {client: {} for client in (0, 1, 2)}

    with pytest.raises(FederationError, match=r"1 of 4 clients answered"):
        run(rows, tmp_path / "run", tamper)


def test_who_does_not_answer_sends_nothing(rows, tmp_path):
    changes = {"clients.participation": 0.5, "rounds": 1}

    def tamper(_round, _broadcast, uploads):
        [absent, *_] = {0, 1, 2, 3} - set(uploads)
        return {absent: next(iter(uploads.values()))}

    folder = run(rows, tmp_path / "run", tamper, changes)
    assert len(tiny.rounds(folder)[0]["participants"]) == 2


def test_a_resumed_run_is_the_same(rows, tmp_path):
    through = run(rows, tmp_path / "through", scaled)
    prepared = prepare(tiny.experiment(rows))
    fewer = prepared.experiment.model_copy(update={"rounds": 1})
    setting = replace(prepared.setting, experiment=fewer)
    first = replace(prepared, experiment=fewer, setting=setting)
    simulate_world(first, tmp_path / "resumed", tamper=scaled)
    resumed = run(rows, tmp_path / "resumed", scaled, resume=True)
    assert tiny.student_hash(resumed) == tiny.student_hash(through)
    losses = [[each["losses"] for each in tiny.rounds(folder)] for folder in (through, resumed)]
    assert json.dumps(losses[0]) == json.dumps(losses[1])


def test_a_sum_cannot_be_tampered_with(rows, tmp_path):
    changes = {
        "method": {"name": "analytic"},
        "rounds": 1,
        "privacy.secure_aggregation": True,
    }

    with pytest.raises(ValueError, match=r"the sum of all cannot be tampered with"):
        run(rows, tmp_path / "run", scaled, changes)
