"""Screening: federations in which some clients lie."""

from dataclasses import replace

import tiny
import torch

from fedkd.federation.prepare import prepare
from fedkd.jobs.audit.recording import MESSAGES, RecordingMethod, read_messages
from fedkd.jobs.simulate import simulate_world
from fedkd.methods.core import screening
from fedkd.reports import wording
from fedkd.reports.display import round_in_words

TEN = {"clients.count": 10, "rounds": 1, "clients.training.epochs": 3}


def loud(_round, _broadcast, uploads):
    """Clients 0 to 2 collude: class 0, as loud as can be."""
    sent = {}
    for client in range(3):
        said = torch.zeros_like(uploads[client]["logits"])
        said[:, 0] = 100.0
        sent[client] = {**uploads[client], "logits": said}
    return sent


def far(_round, _broadcast, uploads):
    """Client 0 says what it learned, with weights ten times as far away."""
    model = {n: t * 10 if n.startswith("model/") else t for n, t in uploads[0].items()}
    return {0: model}


def run(rows, folder, changes, tamper=None, **how):
    prepared = prepare(tiny.experiment(rows, changes))
    summary = simulate_world(prepared, folder, tamper=tamper, **how)
    return summary, tiny.rounds(folder)


def test_who_lies_is_left_out_and_the_student_learns_from_the_rest(rows, tmp_path):
    _, [honest] = run(rows, tmp_path / "honest", TEN)
    _, [spoilt] = run(rows, tmp_path / "spoilt", TEN, loud)
    _, [screened] = run(rows, tmp_path / "screened", {**TEN, "robust": {}}, loud)
    assert spoilt["student"]["accuracy"] < 0.5
    assert screened["student"]["accuracy"] > honest["student"]["accuracy"] - 0.05
    assert screened["robust"]["left_out"] == [0, 1, 2]
    found = screened["robust"]["agreement"]
    assert max(found[str(client)] for client in range(3)) <= 0 < found["3"]
    assert "robust" not in spoilt
    assert "not heard, as unlike the rest: clients 0, 1 and 2" in round_in_words(screened)
    page = (tmp_path / "screened" / "report.html").read_text(encoding="utf-8")
    assert "Clients that are unlike the rest" in page
    assert "<td>1 of 1</td>" in page
    assert "unlike the rest" not in (tmp_path / "spoilt" / "report.html").read_text("utf-8")


def test_where_nobody_lies_screening_changes_nothing(rows, tmp_path):
    changes = {
        **TEN,
        "clients.models": [{"name": "mlp", "hidden": [16]}],
        "method": {"name": "fedavg"},
    }
    run(rows, tmp_path / "plain", changes)
    _, [record] = run(rows, tmp_path / "screened", {**changes, "robust": {}})
    assert record["robust"]["left_out"] == []
    assert tiny.student_hash(tmp_path / "plain") == tiny.student_hash(tmp_path / "screened")


def test_who_calls_one_class_on_most_inputs_is_heard_on_some_alone(rows, tmp_path):
    def in_part(_round, _broadcast, uploads):
        own = uploads[2]["logits"].clone()
        lies = torch.arange(len(own)) % 5 > 0
        own[lies] = torch.eye(own.shape[1])[0].half()
        return {2: {**uploads[2], "logits": own}}

    _, [record] = run(rows, tmp_path / "run", {**TEN, "robust": {}}, in_part)
    assert record["robust"]["left_out"] == []
    unheard = record["robust"]["unheard"]
    assert unheard["2"] > 0.1
    said = wording.screened({**record["robust"], "unheard": {"2": 0.5, "5": 0.1}})
    assert said == ["not heard on many inputs, for calling one class too often: client 2"]


def test_a_model_far_from_all_others_is_drawn_nearer(rows, tmp_path):
    changes = {
        **TEN,
        "clients.models": [{"name": "mlp", "hidden": [16]}],
        "method": {"name": "fedavg"},
        "robust": {},
    }
    _, [record] = run(rows, tmp_path / "run", changes, far)
    assert record["robust"]["left_out"] == []
    assert list(record["robust"]["drawn_nearer"]) == ["0"]
    assert 0 < record["robust"]["drawn_nearer"]["0"] < 1


def test_honest_rounds_buy_nobody_a_lie_and_a_resumed_run_remembers(rows, tmp_path):
    def late(round, broadcast, uploads):
        return loud(round, broadcast, uploads) if round == 2 else {}

    changes = {**TEN, "rounds": 3, "robust": {}}
    _, records = run(rows, tmp_path / "run", changes, late)
    assert [each["robust"]["left_out"] for each in records] == [[], [0, 1, 2], []]
    folder = tmp_path / "resumed"
    run(rows, folder, {**changes, "rounds": 2}, late)
    _, again = run(rows, folder, changes, late, resume=True)
    assert [each["robust"] for each in again] == [each["robust"] for each in records]
    assert tiny.student_hash(folder) == tiny.student_hash(tmp_path / "run")


def test_asynchronous_steps_are_screened_and_a_resumed_run_remembers(rows, tmp_path):
    seconds = [1.0] * 8 + [1.5, 2.5]
    how = {"buffer": 8, "seconds": seconds}
    changes = {**TEN, "clients.asynchronous": how, "robust": {}}

    def forged(round, broadcast, uploads):
        sent = loud(round, broadcast, uploads)
        if round == 2:
            sent[2]["logits"] = torch.full_like(sent[2]["logits"], torch.nan)
        return sent

    _, records = run(rows, tmp_path / "run", {**changes, "rounds": 3}, forged)
    assert [each["robust"]["left_out"] for each in records] == [[0, 1, 2]] * 3
    answers = [a for each in records[1]["asynchronous"]["moments"] for a in each["answers"]]
    [refused] = [a for a in answers if a["client"] == 2]
    assert refused["outcome"] == "failed"
    assert "logits" in refused["reason"]
    folder = tmp_path / "resumed"
    run(rows, folder, {**changes, "rounds": 2}, forged)
    _, again = run(rows, folder, {**changes, "rounds": 3}, forged, resume=True)
    assert [each["robust"] for each in again] == [each["robust"] for each in records]
    assert tiny.student_hash(folder) == tiny.student_hash(tmp_path / "run")


def test_who_denies_what_it_knows_is_left_out_though_it_agrees_in_part(rows, tmp_path):
    """FDLA: the likeliest class gets the least, each other one what the class before it had."""

    def reordered(_round, _broadcast, uploads):
        sent = {}
        for client in (0, 2):
            values, order = uploads[client]["logits"].sort(dim=-1, descending=True)
            lie = torch.empty_like(values).scatter(-1, order, values.roll(1, dims=-1))
            # Of each second input the truth: by its cosine the answer is one of the crowd.
            lie[1::2] = uploads[client]["logits"][1::2]
            sent[client] = {**uploads[client], "logits": lie}
        return sent

    _, [record] = run(rows, tmp_path / "run", {**TEN, "robust": {}}, reordered)
    found = record["robust"]
    assert found["left_out"] == [0, 2]
    middle = sorted(found["agreement"].values())[5]
    assert min(found["agreement"][str(client)] for client in (0, 2)) > middle / 3
    against = {int(client): share for client, share in found["contradiction"].items()}
    assert min(against.pop(client) for client in (0, 2)) > 1 / 8 > 0.05 > max(against.values())


def test_a_model_that_learned_of_inputs_that_nobody_else_uses_is_left_out(rows, tmp_path):
    """As one with a backdoor does: the weights of its trigger move, which in others hardly do."""

    def backdoor(_round, broadcast, uploads):
        sent = {}
        for client in range(2):
            own = dict(uploads[client])
            name = "model/classifier.weight"
            way = own[name] - broadcast.common[name]
            way[:, 0] = 2 * way.norm() / way.shape[0] ** 0.5  # of all classes: no answer changes
            sent[client] = {**own, name: broadcast.common[name] + way}
        return sent

    changes = {
        **TEN,
        "clients.models": [{"name": "mlp", "hidden": [64]}],
        "student": {"model": {"name": "mlp", "hidden": [64]}},
        "method": {"name": "fedavg"},
        "robust": {},
    }
    _, [record] = run(rows, tmp_path / "run", changes, backdoor)
    found = record["robust"]
    assert found["left_out"] == [0, 1]
    assert min(found["agreement"].values()) > 0.5
    assert max(found["alone"][str(client)] for client in range(2, 10)) < 0.2 < found["alone"]["0"]


def test_a_model_that_unlearns_what_the_rest_learn_is_left_out(rows, tmp_path):
    """By the direction of its weights: what a small step back answers is still much the same."""

    def unlearns(round, broadcast, uploads):
        if round < 3:
            return {}
        sent = {}
        for client in range(3):
            own = dict(uploads[client])
            for name, before in broadcast.common.items():
                own[name] = before - 0.2 * (own[name] - before)
            sent[client] = own
        return sent

    changes = {
        **TEN,
        "clients.models": [{"name": "mlp", "hidden": [16]}],
        "method": {"name": "fedavg"},
        "rounds": 3,
        "robust": {},
    }
    _, records = run(rows, tmp_path / "run", changes, unlearns)
    assert [each["robust"]["left_out"] for each in records] == [[], [], [0, 1, 2]]
    found, moves = records[2]["robust"]["agreement"], records[2]["robust"]["moves"]
    assert min(found[str(client)] for client in range(3)) > 0.5
    assert (
        max(moves[str(client)] for client in range(3))
        < 0
        < min(moves[str(c)] for c in range(3, 10))
    )


def test_an_audit_keeps_what_everybody_sent_who_is_not_heard_too(rows, tmp_path):
    prepared = prepare(tiny.experiment(rows, {**TEN, "robust": {}}))
    recorded = replace(prepared, method=RecordingMethod(prepared.method, tmp_path / MESSAGES))
    simulate_world(recorded, tmp_path / "run", tamper=loud)
    sent = read_messages(tmp_path)
    assert list(sent[1]) == list(range(10))
    assert float(sent[1][0]["logits"].float().max()) == 100  # as it came


def test_who_is_honest_only_where_it_expects_to_be_compared_is_left_out(tmp_path, monkeypatch):
    """Which inputs are compared follows from what all sent, so nobody knows it beforehand."""
    monkeypatch.setattr(screening, "_INPUTS", 40)

    def careful(_round, _broadcast, uploads):
        sent = {c: {**uploads[c], "logits": -2 * uploads[c]["logits"]} for c in range(3)}
        expected = torch.linspace(0, 159, 40).long()
        for client, upload in sent.items():
            upload["logits"][expected] = uploads[client]["logits"][expected]
        return sent

    changes = {**TEN, "data.public.size": 160, "robust": {}}
    rows = tiny.write_rows(tmp_path / "more.npz", samples=560)
    _, [record] = run(rows, tmp_path / "run", changes, careful)
    assert record["robust"]["left_out"] == [0, 1, 2]
    _, [again] = run(rows, tmp_path / "again", changes, careful)
    assert again["robust"] == record["robust"]
