"""Clients begin with the next round while the server distils, and nothing else changes."""

import json
import random
import threading
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny

from fedkd.errors import FederationError
from fedkd.exchange.messages import Broadcast
from fedkd.federation import ahead
from fedkd.federation.inprocess import WORKER_NAME
from fedkd.federation.prepare import prepare
from fedkd.federation.state import may_be_ahead
from fedkd.jobs.simulate import simulate
from fedkd.methods.dsfl import DSFL
from fedkd.methods.fedmd import FedMD
from fedkd.methods.fedproto import FedProto
from fedkd.reports import report

ROUNDS = 4
MLP = {"name": "mlp", "hidden": [16]}
CHANGES = {
    "rounds": ROUNDS,
    "clients.participation": 0.75,
    "clients.models": [MLP],
    "method": {"name": "fedmd", "student": {"epochs": 3}},
}


class Diary(tiny.Quiet):
    """Which rounds began and ended, in order."""

    def __init__(self):
        self.lines = []

    def round_begins(self, round, cohort):
        self.lines.append(f"begins {round}")

    def round_ends(self, record):
        self.lines.append(f"over {record['round']}")


class CutError(Exception):
    """The process is gone."""


class Cutting(tiny.Quiet):
    """Ends the run at the n-th thing that the server is at; first the next answers come in."""

    def __init__(self, after):
        self.left = after
        self.expected, self.came = 0, threading.Semaphore(0)

    def round_begins(self, round, cohort):
        self.expected, self.came = len(cohort), threading.Semaphore(0)

    def client_ends(self, client, failure):
        self.came.release()

    def server_does(self, phase, done, total):
        self.left -= 1
        if self.left <= 0:
            for _ in range(self.expected):
                self.came.acquire(timeout=600)
            raise CutError


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """A page of charts is none of what is tested here."""
    monkeypatch.setattr(report, "write", lambda folder: None)


def without_seconds(run):
    return [{k: v for k, v in each.items() if k != "seconds"} for each in tiny.rounds(run)]


def released(run):
    return json.loads((run / "summary.json").read_text())["released"]


def left_over():
    return [t for t in threading.enumerate() if t.name.startswith((WORKER_NAME, "fedkd-ahead"))]


@pytest.mark.parametrize("method", [FedMD, DSFL, FedProto])
def test_a_round_is_asked_before_the_one_before_is_over_to_the_same_bits(
    rows, tmp_path, monkeypatch, method
):
    named = {"name": method.__name__.lower(), "student": {"epochs": 3}}
    experiment, diary = tiny.experiment(rows, {**CHANGES, "method": named}), Diary()
    simulate(experiment, tmp_path / "ahead", diary)
    pairs = [(f"begins {round}", f"over {round - 1}") for round in range(2, ROUNDS + 1)]
    overlap = [line for pair in pairs for line in pair]
    assert diary.lines == ["begins 1", *overlap, f"over {ROUNDS}"]

    monkeypatch.setattr(method, "card", replace(method.card, announces=False))
    one_by_one = Diary()
    simulate(experiment, tmp_path / "after", one_by_one)
    assert one_by_one.lines == [
        f"{what} {round}" for round in range(1, ROUNDS + 1) for what in ("begins", "over")
    ]
    assert tiny.student_hash(tmp_path / "ahead") == tiny.student_hash(tmp_path / "after")
    assert without_seconds(tmp_path / "ahead") == without_seconds(tmp_path / "after")


def test_cut_off_while_clients_are_ahead_it_ends_in_the_same_bits(rows, tmp_path):
    experiment = tiny.experiment(rows, CHANGES)
    simulate(experiment, tmp_path / "unbroken")
    for seed in range(2):
        run, draw, through = tmp_path / str(seed), random.Random(seed), False
        while not through:
            with suppress(CutError):
                simulate(experiment, run, Cutting(draw.randint(1, 8)), resume=run.exists())
                through = True
            assert left_over() == []
        assert tiny.student_hash(run) == tiny.student_hash(tmp_path / "unbroken")
        assert without_seconds(run) == without_seconds(tmp_path / "unbroken")
        assert released(run) == released(tmp_path / "unbroken")


def test_a_student_that_diverges_leaves_nobody_at_work(rows, tmp_path):
    student = {"epochs": 3, "learning_rate": 1e18}
    experiment = tiny.experiment(rows, {**CHANGES, "method": {"name": "fedmd", "student": student}})
    diary = Diary()
    with pytest.raises(FederationError, match="training diverged"):
        simulate(experiment, tmp_path / "run", diary)
    assert diary.lines == ["begins 1", "begins 2"]
    assert left_over() == []


class Fickle(FedMD):
    """Announces one thing and returns another."""

    def server(self, ctx, uploads):
        return Broadcast(common=super().server(ctx, uploads).common)


def test_another_broadcast_than_the_one_announced_is_refused(rows, tmp_path):
    changes = {**CHANGES, "method": {"name": "test_ahead:Fickle", "student": {"epochs": 1}}}
    with pytest.raises(FederationError, match=r"gave ctx\.announce another broadcast"):
        simulate(tiny.experiment(rows, changes), tmp_path / "run")
    assert left_over() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy": {"unit": "record", "epsilon": 8.0, "delta": 1e-5}},
        {"privacy": {"unit": "client-votes", "epsilon": 8.0, "delta": 1e-5}, "method.name": "dsfl"},
        {"privacy.secure_aggregation": True, "method.name": "fedproto"},
        {"clients.asynchronous": {"buffer": 2}},
        {"method": {"name": "fedavg"}, "clients.models": [MLP]},
    ],
)
def test_nobody_is_ahead_where_rounds_are_paid_for_or_there_is_no_need(rows, changes):
    assert may_be_ahead(tiny.experiment(rows))
    assert not may_be_ahead(tiny.experiment(rows, changes))


def test_on_one_thread_clients_wait_until_the_server_is_done(rows, tmp_path):
    diary = Diary()
    simulate(tiny.experiment(rows, {**CHANGES, "engine.threads": 1}), tmp_path / "run", diary)
    assert diary.lines[:3] == ["begins 1", "over 1", "begins 2"]


def test_calls_are_out_only_when_this_rounds_are(rows, monkeypatch):
    """Whatever still comes of the round before."""
    asked, encoded, goes_on = [], [], threading.Event()

    def ask(_clients, _cohort, _broadcast, round, *, signals):
        asked.append(signals)
        if round == 2:
            asked[0].sent.set()
            goes_on.wait(0.3)
        encoded.append(round)
        signals.sent.set()

    monkeypatch.setattr(ahead, "ask", ask)
    clients = SimpleNamespace(prepared=prepare(tiny.experiment(rows)), observer=tiny.Quiet())
    with ahead.Ahead(clients) as asking:
        for round in (1, 2):
            asking.ask(round, Broadcast())
            assert encoded == [*range(1, round + 1)]
        goes_on.set()
