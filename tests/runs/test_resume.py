"""A run that is killed anywhere and resumed ends in the very bits of an unbroken one."""

import json
import random
import signal
import subprocess
import sys
import time
from multiprocessing import get_context

import pytest
import tiny

from fedkd.files import write_atomically
from fedkd.jobs.simulate import simulate
from fedkd.reports import report

ROUNDS = 10
CHANGES = {
    "rounds": ROUNDS,
    "clients.count": 5,
    "clients.participation": 0.6,
    "clients.training.epochs": 15,
    "method": {"name": "fedmd", "public_per_round": 20, "student": {"epochs": 20}},
}


def begin(experiment, run):
    """A fork of this process, since one that starts anew imports torch first."""
    options = {"resume": run.exists()}
    process = get_context("fork").Process(
        target=simulate, args=(experiment, run, tiny.Quiet()), kwargs=options
    )
    process.start()
    return process


def lines(run):
    path = run / "rounds.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def kill_when(process, ready, delay):
    """SIGKILL `delay` seconds after `ready()`; the process must be under way until then."""
    while not ready():
        assert process.is_alive()
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_four_times_and_resumed_ends_in_the_same_bits(rows, tmp_path, monkeypatch):
    experiment = tiny.experiment(rows, CHANGES)
    run, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    simulate(experiment, unbroken, tiny.Quiet())

    draw = random.Random(4)
    moments = [
        (run / "config.toml").exists,
        lambda: lines(run) >= 3,
        lambda: lines(run) >= 7,
        (run / "student.safetensors").exists,
    ]
    with monkeypatch.context() as patch:
        # However quick a machine is, none of these is through before it is killed.
        patch.setattr(report, "write", lambda folder: signal.pause())
        for ready in moments:
            kill_when(begin(experiment, run), ready, delay=draw.uniform(0, 0.05))
            assert not (run / "report.html").exists()
    last = begin(experiment, run)
    last.join()
    assert last.exitcode == 0

    assert [record["round"] for record in tiny.rounds(run)] == list(range(1, ROUNDS + 1))
    assert tiny.student_hash(run) == tiny.student_hash(unbroken)
    assert without_seconds(tiny.rounds(run)) == without_seconds(tiny.rounds(unbroken))
    assert summary(run) == summary(unbroken)
    assert sorted(names(run)) == sorted(names(unbroken))  # no temporary file, no stale state


def without_seconds(records):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def summary(run):
    return {
        k: v for k, v in json.loads((run / "summary.json").read_text()).items() if k != "seconds"
    }


def names(run):
    return [str(path.relative_to(run)) for path in run.rglob("*")]


def test_a_file_that_a_killed_writer_left_beside_is_gone_after_the_next_write(tmp_path):
    script = (
        "import os, pathlib, sys\n"
        "from fedkd.files import write_atomically\n"
        "pathlib.Path.replace = lambda *paths: os._exit(9)\n"
        "write_atomically(pathlib.Path(sys.argv[1]), 'half')\n"
    )
    path = tmp_path / "summary.json"
    assert subprocess.run([sys.executable, "-c", script, path], check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 1
    write_atomically(path, "whole")
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["whole"]
