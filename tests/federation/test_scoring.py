"""Who is scored when and on what: by `[output] evaluate`, in a run's folder and on its page."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from fedkd import config
from fedkd.config import parse
from fedkd.errors import ConfigError
from fedkd.federation import scoring
from fedkd.federation.prepare import prepare
from fedkd.jobs.simulate import simulate
from fedkd.learning import evaluate
from fedkd.reports.comparison import comparison_table
from fedkd.reports.display import round_in_words
from fedkd.runs.reading import read
from fedkd.runs.student import load

AVERAGED = {
    "method.name": "fedavg",
    "clients.models": [{"name": "mlp", "hidden": [16]}],
    "data.public": None,
}


def experiment(rows: Path, evaluate: dict[str, Any], **changes: Any) -> config.Experiment:
    return tiny.experiment(rows, {**AVERAGED, "output.evaluate": evaluate, **changes})


def test_scores_are_of_the_rounds_clients_and_records_that_the_experiment_names(
    rows: Path, tmp_path: Path
) -> None:
    how = {"every": 2, "clients": 3, "test_size": 30}
    scored = experiment(rows, how, rounds=5)
    summary = simulate(scored, tmp_path / "run", tiny.Quiet())
    first, second, third, fourth, last = tiny.rounds(tmp_path / "run")
    for each in (first, third):
        assert each["student"] is None
        assert each["teachers"] is None
        assert "not scored" in round_in_words(each)
    for each in (second, fourth):
        assert (each["student"]["records"], each["student"]["of"]) == (30, 120)
        right = 30 * each["student"]["accuracy"]
        assert right == pytest.approx(round(right))
        teachers = each["teachers"]["by_client"].values()
        assert [one["records"] for one in teachers] == [30, 30, 30]
        assert "of 30 test records" in round_in_words(each)
    drawn = [set(each["teachers"]["by_client"]) for each in (second, fourth, last)]
    assert len({frozenset(each) for each in drawn}) > 1
    assert "records" not in last["student"]
    assert all("records" not in one for one in last["teachers"]["by_client"].values())
    # What the run ends with is of the whole test set, and of no earlier round's teachers.
    student = load(tmp_path / "run")
    test = prepare(scored).data.test
    assert evaluate.accuracy(student.model, test) == summary["student"]["accuracy"]
    theirs = [one["accuracy"] for one in last["teachers"]["by_client"].values()]
    assert summary["teachers"]["scored"] == 3
    assert summary["teachers"]["best_accuracy"] == max(theirs)


def test_the_page_says_what_was_measured(rows: Path, tmp_path: Path) -> None:
    how = {"every": 2, "clients": 3, "test_size": 30}
    simulate(experiment(rows, how, rounds=5), tmp_path / "run", tiny.Quiet())
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The student was scored after three of five rounds." in page
    assert "After two rounds scores are of 30 of the 120 test records" in page
    assert "Of a round’s clients three were scored, drawn each time." in page
    assert "the best of 3 teachers scored" in page
    assert "teachers that were scored" in page
    assert "From round 2 to round 5" in page
    simulate(tiny.experiment(rows, AVERAGED), tmp_path / "plain", tiny.Quiet())
    assert 'id="measured"' not in (tmp_path / "plain" / "report.html").read_text()


def test_the_page_of_a_run_with_one_teacher_scored_on_few_records(
    rows: Path, tmp_path: Path
) -> None:
    how = {"every": 2, "clients": 1, "test_size": 5}
    simulate(experiment(rows, how, rounds=3), tmp_path / "run", tiny.Quiet())
    _, second, last = tiny.rounds(tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Of a round’s clients one was scored, drawn each time." in page
    assert "the one teacher scored" in page
    assert "the one teacher that was scored, client" in page
    begins, ends = (f"{100 * each['student']['accuracy']:.1f}%" for each in (second, last))
    assert f"the student goes from {begins} on 5 records to {ends}" in page
    part = second["student"]["accuracy"] > last["student"]["accuracy"]
    assert ("at its best, on part of the test set" in page) == part


@pytest.mark.parametrize("clients", ["last", "none"])
def test_fewer_scores_leave_and_the_student_is_the_same(
    rows: Path, tmp_path: Path, clients: str
) -> None:
    plain = simulate(tiny.experiment(rows, AVERAGED), tmp_path / "plain", tiny.Quiet())
    fewer = simulate(experiment(rows, {"clients": clients}), tmp_path / "run", tiny.Quiet())
    assert tiny.student_hash(tmp_path / "run") == tiny.student_hash(tmp_path / "plain")
    first, last = tiny.rounds(tmp_path / "run")
    assert first["teachers"] is None
    assert first["student"]["accuracy"] == tiny.rounds(tmp_path / "plain")[0]["student"]["accuracy"]
    sent = sorted(each["times"] for each in fewer["released"] if each["field"] == "report")
    assert sent == ([4, 8] if clients == "last" else [8])  # seconds come in every round
    assert fewer["teachers"] == (plain["teachers"] if clients == "last" else None)
    assert (last["teachers"] is None) == (clients == "none")
    words = "after the last round alone" if clients == "last" else "teachers were not scored"
    assert words in (tmp_path / "run" / "report.html").read_text()


def test_runs_that_are_scored_in_other_rounds_are_compared(rows: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, (folder, every) in enumerate(zip(folders, (1, 3), strict=True)):
        changes: dict[str, Any] = {"seed": seed, "rounds": 3}
        simulate(experiment(rows, {"every": every}, **changes), folder, tiny.Quiet())
    [row] = comparison_table(folders)
    ends = [read(folder).summary.student.number("accuracy") for folder in folders]
    assert row.student.mean == pytest.approx(sum(ends) / 2)


def test_a_large_test_set_or_many_clients_are_scored_sparingly_unless_one_says_otherwise(
    rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tiny.experiment(rows, {**AVERAGED, "rounds": 3})
    found = prepare(plain).scoring
    assert all(found.of(client, 1) for client in range(4))
    assert found.whole(1)
    monkeypatch.setattr(scoring, "_FEW_RECORDS", 50)
    for few in (prepare(plain).scoring, prepare(experiment(rows, {}, rounds=3)).scoring):
        assert [any(few.of(client, n) for client in range(4)) for n in (1, 2, 3)] == [0, 0, 1]
        assert [few.happens(n) for n in (1, 2, 3)] == [True] * 3
        assert [len(few.records(n)) for n in (1, 2, 3)] == [50, 50, 120]
        assert torch.equal(few.records(1).y, few.records(2).y)
    everything = {"clients": "all", "test_size": "all"}
    everybody = prepare(experiment(rows, everything, rounds=3)).scoring
    assert everybody.of(0, 1)
    assert everybody.whole(1)
    monkeypatch.setattr(scoring, "_FEW_RECORDS", 200)
    monkeypatch.setattr(scoring, "_FEW_CLIENTS", 3)
    assert not prepare(plain).scoring.of(0, 2)


def test_a_late_answer_to_one_of_the_last_steps_has_its_scores(rows: Path, tmp_path: Path) -> None:
    late = {"buffer": 2, "staleness": 2, "seconds": [1.0, 1.0, 1.0, 3.0]}
    changes = {"clients.asynchronous": late, "rounds": 5}
    how = {"clients": "last", "test_size": 30}
    summary = simulate(experiment(rows, how, **changes), tmp_path / "run", tiny.Quiet())
    lines = tiny.rounds(tmp_path / "run")
    assert [each["teachers"] is None for each in lines[:2]] == [True, True]
    last = lines[-1]
    assert last["teachers"]["by_client"].keys() == set(map(str, last["participants"]))
    assert summary["teachers"] is not None


def test_personal_scores_come_in_the_rounds_that_are_scored(rows: Path, tmp_path: Path) -> None:
    changes = {"clients.test_share": 0.25, "rounds": 3}
    simulate(experiment(rows, {"every": 2}, **changes), tmp_path / "run", tiny.Quiet())
    assert ["personal" in each for each in tiny.rounds(tmp_path / "run")] == [False, True, True]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"clients": "some"}, "expected 'all', 'last', 'none' or a number of at least 1"),
        ({"clients": 0}, "expected 'all', 'last', 'none' or a number of at least 1"),
        ({"test_size": True}, "expected 'all' or a number of at least 1"),
        ({"every": 0}, "output.evaluate.every"),
        ({"eveyr": 2}, "unknown key 'output.evaluate.eveyr'"),
    ],
)
def test_what_it_cannot_be_is_refused_in_a_line(how: dict[str, Any], words: str) -> None:
    table = tiny.table(Path("rows.npz"), {"output.evaluate": how})
    with pytest.raises(ConfigError, match=words):
        parse(table)


def test_experiments_that_do_not_name_it_keep_their_sha_256(rows: Path) -> None:
    assert "evaluate" not in tiny.experiment(rows).to_json()
    given = experiment(rows, {"every": 2, "clients": "last"})
    assert '"evaluate":{"every":2,"clients":"last"}' in given.to_json()
    assert config.parse_json(given.to_json()) == given
