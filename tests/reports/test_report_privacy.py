"""What a report says of a run that was protected."""

import json

from example_run import change, read_lines, write_lines, write_run
from test_report import Page

from fedkd.reports.report import write, write_comparison

PROTECTED = {
    "unit": "record",
    "epsilon": 2.9312,
    "delta": 1e-5,
    "adjacency": "add-remove",
    "accountant": "PLD",
    "budget": 4.0,
    "noise_multiplier": 1.1,
    "signal_to_noise": None,
}


def protected(path, **changes):
    run = write_run(path, clients=2, rounds=3, classes=("cat", "dog"))
    change(run, privacy=PROTECTED | changes)
    lines = read_lines(run)
    for line in lines:
        line["privacy"] = {"epsilon": 2.9312 * line["round"] / 3, "accountant": "PLD"}
    write_lines(run, lines)
    return run


def test_epsilon_by_round_is_drawn_against_the_budget(tmp_path):
    page = Page(write(protected(tmp_path / "run")))
    assert len(page.ids) == len(set(page.ids))
    assert "What privacy was spent" in page.text
    assert "After round 3 epsilon stands at 2.931 of 4, at delta 1e-05 (add-remove)" in page.text
    assert "Spent 2.931" in page.text
    assert "Budget 4" in page.text
    assert "NO DP" not in page.text


def test_what_is_protected_is_said_in_words(tmp_path):
    page = Page(write(protected(tmp_path / "run")))
    assert "epsilon 2.931 Each client’s teacher learnt by DP-SGD." in page.text
    assert "hides whether any one record was among a client’s training data" in page.text
    assert "of a budget of 4" in page.text
    votes = Page(write(protected(tmp_path / "votes", unit="client-votes")))
    assert "The server itself sees every vote and must be trusted." in votes.text


def test_a_run_without_dp_has_no_drawing_of_what_it_spent(tmp_path):
    page = Page(write(write_run(tmp_path / "run", clients=2, classes="ab")))
    assert "What privacy was spent" not in page.text
    assert "NO DP" in page.text


def test_a_comparison_says_the_most_that_was_spent_and_which_runs_had_no_dp(tmp_path):
    both = [protected(tmp_path / "a"), protected(tmp_path / "b", epsilon=3.5)]
    page = Page(write_comparison(both, tmp_path / "both.html"))
    assert "The most that any of these runs spent: epsilon 3.5 of 4" in page.text
    bare = write_run(tmp_path / "c", clients=2, rounds=3, classes=("cat", "dog"))
    mixed = Page(write_comparison([*both, bare], tmp_path / "mixed.html"))
    assert "NO DP No differential privacy in one of these runs" in mixed.text


def test_rounds_of_an_older_fedkd_have_no_privacy_and_are_still_read(tmp_path):
    run = write_run(tmp_path / "run", clients=2, classes="ab")
    assert all("privacy" not in line for line in read_lines(run))
    assert json.loads((run / "summary.json").read_text())["privacy"] == {"unit": "none"}
    assert "NO DP" in Page(write(run)).text
