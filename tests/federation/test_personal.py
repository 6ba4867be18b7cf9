"""Personal scores: rows that clients keep, and how models do on them."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from fedkd.data.personal import keep_out
from fedkd.errors import DataError, MessageError
from fedkd.exchange.codec import decode, encode
from fedkd.federation import personal
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.learning import evaluate
from fedkd.reports import tables
from fedkd.tasks import find

SHARE = {"clients.test_share": 0.3, "task.scores": ["auroc", "accuracy"]}


def test_rows_that_are_held_out_never_train_and_every_row_is_in_one_part(rows):
    whole = prepare(tiny.experiment(rows)).data
    parts = prepare(tiny.experiment(rows, SHARE)).data
    assert whole.held_out == ()
    for before, training, testing in zip(whole.clients, parts.clients, parts.held_out, strict=True):
        assert 0 < len(testing) < len(training)
        seen = [{tuple(row) for row in part.x.tolist()} for part in (training, testing, before)]
        assert seen[0].isdisjoint(seen[1])
        assert seen[0] | seen[1] == seen[2]
    assert '"quorum":0.5}' in tiny.experiment(rows).to_json()  # no key more, unless it is given
    [first, *_] = whole.clients
    nobody = replace(whole, clients=(first.subset(torch.arange(0)), first))  # as a site sees others
    assert [len(part) for part in keep_out(nobody, 0.3, seed=7).held_out] == [
        0, len(parts.held_out[0]),
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"leaves client 0 nothing to train on: lower it$"):
        keep_out(whole, 1 - 1e-12, seed=0)


def test_own_models_and_the_student_are_scored_on_the_same_rows(rows, tmp_path):
    experiment = tiny.experiment(rows, SHARE)
    summary = simulate(experiment, tmp_path / "run", tiny.Quiet())
    held_out = prepare(experiment).data.held_out
    last = tiny.rounds(tmp_path / "run")[-1]["personal"]
    assert summary["personal"] == last
    assert [each["rows"] for each in last["by_client"].values()] == [len(own) for own in held_out]
    for of in (lambda each: each, lambda each: each["student"]):
        for figure in ("auroc", "accuracy"):
            reached = [of(each)[figure] for each in last["by_client"].values()]
            assert of(last)[f"mean_{figure}"] == pytest.approx(np.mean(reached))
            by_rows = np.average(reached, weights=[len(own) for own in held_out])
            assert of(last)[f"weighted_mean_{figure}"] == pytest.approx(by_rows)
    assert last["by_client"]["0"]["accuracy"] > 0.5  # chance is a third
    prepared = prepare(experiment)
    student = prepared.setting.student.build(experiment.student.model, purpose="student")
    student.load_state_dict(load_file(tmp_path / "run" / "student.safetensors"))
    for own, each in zip(held_out, last["by_client"].values(), strict=True):
        assert each["student"]["accuracy"] == evaluate.accuracy(student, own)
    released = {each["field"]: each["provenance"] for each in summary["released"]}
    assert released["personal"] == "release: scores on held-out rows, no DP"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "On clients’ own held-out records" in page
    assert f"{100 * last['mean_auroc']:.1f}%" in page
    assert tables.summary(summary).row_count > 8


def test_under_protection_they_are_withheld_and_it_is_said(rows, caplog):
    summed = {
        **{"clients.models": ["mlp"], "student.model": "mlp", "rounds": 1},
        **{"privacy.secure_aggregation": True, "method": {"name": "analytic"}},
    }
    with caplog.at_level(logging.WARNING):
        prepared = prepare(tiny.experiment(rows, {**SHARE, **summed}))
    assert "their scores are withheld under secure aggregation" in caplog.text
    assert not any(name.startswith("personal") for name in prepared.expects(0, 1))
    assert personal.are_sent(tiny.experiment(rows, SHARE))
    for unit in ("record", "client-votes", "client-logits"):
        protected = {**SHARE, "privacy": {"unit": unit, "epsilon": 8.0}}
        assert not personal.are_sent(tiny.experiment(rows, protected))


def test_a_share_that_is_none_is_refused():
    [score] = [find("classification").scores["accuracy"](3)]
    fields = {"personal/figures": torch.tensor([1.5], dtype=torch.float64)}
    with pytest.raises(MessageError, match=r"share that is not in \[0, 1\]"):
        personal.check(fields, [score])
    personal.check({}, [score])


def test_a_figure_whose_mean_no_record_could_hold_is_refused(rows):
    expected = personal.expected(prepare(tiny.experiment(rows, SHARE)).setting)
    sent = {
        "personal/figures": torch.tensor([1e308, 0.5], dtype=torch.float64),
        "personal/defined": torch.tensor([True, True]),
        "personal/rows": torch.tensor(10),
    }
    with pytest.raises(MessageError, match=r"'personal/figures' is not within"):
        decode(encode(sent), expected)
