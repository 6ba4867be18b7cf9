"""`fedkd audit mechanism` and `teacher`: what is measured, for people and for programs."""

import json

import pytest
import tiny

from fedkd.privacy import mechanisms

DP = {
    "privacy.epsilon": 4.0,
    "privacy.sample_rate": 0.25,
    "clients.models": [{"name": "mlp", "hidden": [16]}],
}
SAID = {"outcome", "what", "threat", "canaries", "confidence", "claim", "epsilon", "ceiling"}


@pytest.fixture
def config(rows, here):
    return tiny.write_config(here / "tiny.toml", rows, DP)


def test_a_teacher_is_audited_in_words_and_in_json(run, config):
    status, out, complaint = run("audit", "teacher", config, "--canaries", "400")
    assert (status, complaint) == (0, "")
    for word in ("CONSISTENT", "Poisson sampling", "record, add-remove", "white box", "ceiling"):
        assert word in out
    assert "passed" not in out.lower()
    status, out, complaint = run("audit", "teacher", config, "--canaries", "400", "--json")
    assert (status, complaint) == (0, "")
    told = json.loads(out)
    [verdict] = told["verdicts"]
    assert verdict.keys() >= SAID
    assert verdict["claim"].keys() >= {"epsilon", "delta", "unit", "adjacency"}
    assert {check["outcome"] for check in told["checks"]} == {"CONSISTENT"}
    assert not (config.parent / "runs").exists()


def test_few_canaries_are_said_to_have_no_power(run, config):
    status, out, _ = run("audit", "teacher", config, "--canaries", "10", "--json")
    assert status == 0
    [verdict] = json.loads(out)["verdicts"]
    assert verdict["outcome"] == "NO POWER"
    assert verdict["ceiling"] < verdict["claim"]["epsilon"]


def test_a_violation_exits_with_three_after_all_is_said(run, monkeypatch):
    monkeypatch.setattr(mechanisms, "gaussian", lambda value, **_: value)
    status, out, complaint = run("audit", "mechanism", "--draws", "2000")
    assert status == 3
    assert "VIOLATION" in out
    assert complaint.startswith("error: VIOLATION, Gaussian noise, as of a clipped sum")
    assert len(complaint.splitlines()) == 1


def test_where_nothing_is_claimed_there_is_nothing_to_refute(run, rows, here):
    bare = tiny.write_config(here / "bare.toml", rows)
    status, out, complaint = run("audit", "teacher", bare)
    assert (status, out) == (2, "")
    assert "NO DP" in complaint
    votes = {"privacy.unit": "client-votes", "privacy.epsilon": 1000.0, "method.name": "dsfl"}
    shared = tiny.write_config(here / "votes.toml", rows, votes)
    status, _, complaint = run("audit", "teacher", shared)
    assert status == 2
    assert "fedkd audit mechanism" in complaint or "hopeless" in complaint
