"""Folders that fedkd 0.1 wrote, before tasks and devices, load, report and go on as before.

`runs_of_0_1/` was written by that version: a federation of one round, and a distillation.
"""

import shutil
from pathlib import Path

import pytest
import tiny

from fedkd import config
from fedkd.jobs.simulate import simulate
from fedkd.reports import distil_report, report
from fedkd.runs import student as students
from fedkd.runs.reading import read

OLD = Path(__file__).parent / "runs_of_0_1"


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy, where its configs' relative paths lead to its data."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def test_an_old_federation_loads_with_its_figures(old):
    run = read(old / "federation")
    [first] = tiny.rounds(old / "federation")
    assert run.rounds[0].student.number("accuracy") == first["student"]["accuracy"]
    assert run.summary.student.number("accuracy") == first["student"]["accuracy"]


def test_an_old_federations_report_is_written_again(old):
    page = report.write(old / "federation").read_text(encoding="utf-8")
    accuracy = read(old / "federation").summary.student.number("accuracy")
    assert f"{accuracy:.1%}" in page


def test_an_old_distillations_report_is_written_again(old):
    page = distil_report.write(old / "distillation").read_text(encoding="utf-8")
    assert "63.3%" in page  # the student's accuracy, as the folder has it


@pytest.mark.parametrize("run", ["federation", "distillation"])
def test_an_old_runs_student_loads(old, run):
    student = students.load(old / run)
    assert sum(parameter.numel() for parameter in student.model.parameters()) > 0


def test_an_old_federation_goes_on_for_another_round(old):
    experiment = config.load(old / "federation" / "config.toml", ["rounds=2"])
    simulate(experiment, old / "federation", tiny.Quiet(), resume=True)
    first, second = tiny.rounds(old / "federation")
    [kept] = tiny.rounds(OLD / "federation")
    assert first == kept
    assert second["round"] == 2
    assert len(second["participants"]) == 3
