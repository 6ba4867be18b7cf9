"""`fedkd sweep` as a command; what it runs is tests/jobs/test_sweep.py's."""

import re

import tiny


def test_a_sweep_prints_a_table_names_what_failed_and_ends_with_1(run, rows, here):
    changes = {"rounds": 1, "method": {"name": "fedmd", "student": {"epochs": 30}}}
    config = tiny.write_config(here / "tiny.toml", rows, changes)
    sweep = ("sweep", config, "--seeds", "1", "--grid", "clients.training.learning_rate=0.05,1e30")
    status, out, complaint = run(*sweep, "--out", "all")
    assert status == 1
    assert re.search(r"clients.training.learning_rate +seeds +student", out)
    assert re.search(r"\n 0.05 +1 +[\d.]+ ", out)
    assert "learning_rate=0.05-seed7: done\n" in out
    assert f"report: {here / 'all' / 'report.html'}\n" in out
    assert complaint.startswith("error: 1 of 2 runs failed, and --resume tries them again: ")
    assert "learning_rate=1e30-seed7: round 1: 0 of 4 clients answered" in complaint
    assert complaint.count("\n") == 1

    status, out, complaint = run(*sweep[:3], "2", "--grid", "rounds=1,two", "--out", "other")
    assert (status, out, complaint.count("\n")) == (2, "", 1)
    assert complaint.startswith("error: sweep at rounds=two: key 'rounds' is ")
    assert not (here / "other").exists()
