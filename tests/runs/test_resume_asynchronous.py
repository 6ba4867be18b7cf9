"""An asynchronous run that is cut off anywhere and resumed ends in the bits of an unbroken one."""

import random
from contextlib import suppress

import pytest
import tiny

from fedkd.jobs.simulate import simulate
from fedkd.privacy.ledger import read_statements
from fedkd.reports import report

ROUNDS = 6
CHANGES = {
    "rounds": ROUNDS,
    "method": {"name": "fedmd", "student": {"epochs": 2}},
    # Client 3 answers twice between steps 3 and 4, and client 0's first answer comes too late.
    "clients.asynchronous": {"buffer": 2, "staleness": 3, "seconds": [11.0, 8.0, 4.0, 3.0]},
}
MLP = {"name": "mlp", "hidden": [16]}


class CutError(Exception):
    """The process is gone."""


class Cutting(tiny.Quiet):
    """Ends the run at the n-th thing that it is told of."""

    def __init__(self, after):
        self.left = after

    def client_ends(self, client, failure):
        self._count()

    def round_ends(self, record):
        self._count()

    def _count(self):
        self.left -= 1
        if self.left == 0:
            raise CutError


class CuttingAtSecondAnswers(tiny.Quiet):
    """Ends the run where a client has answered twice between two steps."""

    def __init__(self):
        self.answered = []

    def client_ends(self, client, failure):
        if client in self.answered:
            raise CutError
        self.answered.append(client)

    def round_ends(self, record):
        self.answered = []


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """A page of charts is none of what is tested here."""
    monkeypatch.setattr(report, "write", lambda folder: None)


def without_seconds(run):
    return [{k: v for k, v in each.items() if k != "seconds"} for each in tiny.rounds(run)]


def cut_often(experiment, run, *, seed):
    """Run with a cut after some events, again and again, until it is through."""
    draw, times, through = random.Random(seed), 0, False
    while not through:
        with suppress(CutError):
            simulate(experiment, run, Cutting(draw.randint(1, 10)), resume=times > 0)
            through = True
        times += 1
    return times - 1


@pytest.mark.parametrize(
    "changes",
    [{}, {"method": {"name": "fedavg"}, "clients.models": [MLP]}],
    ids=["answers", "models"],
)
def test_cut_off_again_and_again_it_ends_in_the_same_bits(rows, tmp_path, changes):
    experiment = tiny.experiment(rows, {**CHANGES, **changes})
    simulate(experiment, tmp_path / "unbroken")
    answers = [
        [answer["client"] for moment in each["asynchronous"]["moments"]
         for answer in moment["answers"]]
        for each in tiny.rounds(tmp_path / "unbroken")
    ]  # fmt: skip
    assert any(len(set(each)) < len(each) for each in answers)  # somebody answered twice
    for seed in range(2):
        run = tmp_path / f"cut-{seed}"
        assert cut_often(experiment, run, seed=seed) >= 2
        assert tiny.student_hash(run) == tiny.student_hash(tmp_path / "unbroken")
        assert without_seconds(run) == without_seconds(tmp_path / "unbroken")
    run = tmp_path / "twice"
    with pytest.raises(CutError):
        simulate(experiment, run, CuttingAtSecondAnswers())
    simulate(experiment, run, resume=True)
    assert tiny.student_hash(run) == tiny.student_hash(tmp_path / "unbroken")
    assert without_seconds(run) == without_seconds(tmp_path / "unbroken")


def test_a_finished_run_goes_on_for_more_rounds_as_if_it_had_been_planned_for_them(rows, tmp_path):
    changes = {**CHANGES, "method": {"name": "fedmd", "student": {"epochs": 2}}}
    simulate(tiny.experiment(rows, changes), tmp_path / "whole")
    simulate(tiny.experiment(rows, {**changes, "rounds": 3}), tmp_path / "longer")
    simulate(tiny.experiment(rows, changes), tmp_path / "longer", resume=True)
    assert tiny.student_hash(tmp_path / "longer") == tiny.student_hash(tmp_path / "whole")


def test_under_privacy_each_pays_for_its_own_trainings_once_whatever_is_cut_off(rows, tmp_path):
    # Noise that is given need not be looked for, which takes as long as all else here.
    privacy = {"epsilon": 60.0, "noise_multiplier": 2.0}
    changes = {**CHANGES, "privacy": privacy, "clients.training.batch_size": 20}
    experiment, run = tiny.experiment(rows, changes), tmp_path / "run"
    with pytest.raises(CutError):
        simulate(experiment, run, CuttingAtSecondAnswers())
    simulate(experiment, run, Cutting(100), resume=True)
    asked = {client: [] for client in range(4)}
    for record in tiny.rounds(run):
        assert record["privacy"]["epsilon"] <= 60.0
        assert record["failures"] == [] or record["failures"][0]["reason"].startswith("its answer")
        for moment in record["asynchronous"]["moments"]:
            for answer in moment["answers"]:
                asked[answer["client"]].append(answer["round"])
    assert len({len(rounds) for rounds in asked.values()}) > 1
    for client, rounds in asked.items():
        assert rounds == sorted(set(rounds))
        assert set(rounds) <= set(range(1, ROUNDS + 1))
        [statement] = read_statements(
            run / "checkpoints" / "clients" / f"client-{client:04d}" / "ledger.db"
        )
        assert statement.committed
        assert [each["purpose"] for each in statement.releases] == [
            f"tiny, round {round}" for round in rounds
        ]
