"""Reports, tables and comparisons of runs whose headline is another score than accuracy."""

import re

import pytest
from example_run import read_lines, write_lines
from scored_run import CONFUSION, F1, RMSE, write_scored

from fedkd.errors import RunFolderError
from fedkd.reports import tables
from fedkd.reports.comparison import comparison_table
from fedkd.reports.display import round_in_words
from fedkd.reports.report import write, write_comparison
from fedkd.runs.scores import ShownScore

CLASSES = ("cat", "dog", "owl")


def words(page):
    """The text of a page, its charts' too."""
    text = re.sub(r"<style.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", text)


def test_a_run_is_told_by_its_own_score_and_shows_all_of_them(tmp_path):
    run = write_scored(
        tmp_path / "run", [F1, RMSE, CONFUSION], classes=CLASSES, clients=4, lift=0.02
    )
    text = words(write(run).read_text())
    last = read_lines(run)[-1]
    assert "accuracy" not in text.lower()
    assert f"The student ends at macro F1 {100 * last['student']['macro_f1']:.1f}%" in text
    for heading in ("Macro F1 by round", "Macro F1 by client", "Macro F1 by client and class, %"):
        assert heading in text
    assert "Every score" in text
    assert f"{last['student']['rmse']:.4g}" in text
    assert "RMSE (lower is better)" in text
    assert (
        "Of 3 records that the student takes for another class, most are dog taken for cat (2)"
        in text
    )


def test_of_a_score_that_is_best_when_it_is_low_the_best_is_the_lowest(tmp_path):
    run = write_scored(tmp_path / "run", [RMSE], classes=CLASSES, clients=4)
    text = words(write(run).read_text())
    last = read_lines(run)[-1]
    by_client = {c: t["rmse"] for c, t in last["teachers"]["by_client"].items()}
    best, worst = min(by_client, key=by_client.get), max(by_client, key=by_client.get)
    assert f"the best is client {best} (" in text
    assert f"the weakest client {worst} (" in text
    beaten = sum(last["student"]["rmse"] < value for value in by_client.values())
    assert f"better than {'all' if beaten == 4 else f'{beaten} of'} 4 teachers" in text
    assert "by class" not in text.lower().replace("by client and class (faint", "")
    line = round_in_words(last, ShownScore.model_validate(RMSE))
    assert f"student RMSE {last['student']['rmse']:.4g}" in line
    assert f"(best {by_client[best]:.4g})" in line


def test_figures_that_are_not_defined_are_left_open(tmp_path):
    run = write_scored(tmp_path / "run", [F1], classes=CLASSES, clients=3, rounds=2)
    lines = read_lines(run)
    for line in lines:
        line["student"]["macro_f1"] = line["teachers"]["by_client"]["1"]["macro_f1"] = None
        line["ensemble"]["macro_f1"] = None
    write_lines(run, lines)
    text = words(write(run).read_text())
    assert "nan" not in text.lower().split()
    assert "Macro F1 is not defined for the student" in text


def test_runs_are_compared_by_the_score_that_they_share(tmp_path):
    runs = [
        write_scored(tmp_path / method, [RMSE], method=method, name=method, lift=lift)
        for method, lift in (("fedmd", 0.0), ("fedavg", 0.1))
    ]
    rows = comparison_table(runs)
    assert [row.method for row in rows] == ["fedavg", "fedmd"]
    assert rows[0].student.mean < rows[1].student.mean
    table = tables.comparison(rows)
    assert str(table.title).startswith("Test RMSE (lower is better) after the last round")
    text = words(write_comparison(runs, tmp_path / "page.html").read_text())
    assert "Student RMSE by method (lower is better)" in text
    assert "accuracy" not in text.lower()
    other = write_scored(tmp_path / "other", [F1])
    with pytest.raises(RunFolderError, match=r"is scored by rmse, .* by macro-f1"):
        comparison_table([*runs, other])


def test_a_model_without_the_headline_score_is_refused(tmp_path):
    run = write_scored(tmp_path / "run", [F1], clients=2, rounds=1)
    lines = read_lines(run)
    del lines[0]["teachers"]["by_client"]["1"]["macro_f1"]
    write_lines(run, lines)
    with pytest.raises(RunFolderError, match="round 1: macro_f1 of every model"):
        write(run)
