"""Processes die anywhere, and two work at once: no more is drawn than the ledger counts."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import ledger_worker
import pytest
from ledger_worker import BUDGET, ROUND, account, check_covers, play

from fedkd.errors import BudgetError
from fedkd.privacy.accountant import filter_epsilon
from fedkd.privacy.budget import Budget
from fedkd.privacy.chain import examine
from fedkd.privacy.ledger import Ledger


@pytest.fixture
def memory():
    """A folder in memory where there is one: what a killed process wrote stays there as well."""
    place = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=place if place.is_dir() else None) as folder:
        yield Path(folder)


def start(job, *arguments):
    script = Path(ledger_worker.__file__)
    return subprocess.Popen(
        [sys.executable, str(script), job, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    told, complaint = process.communicate(timeout=600)
    assert process.returncode == 0, complaint
    return told


@pytest.mark.slow
def test_a_client_killed_at_20_points_of_a_round_has_spent_what_it_drew(memory):
    finish(start("killed_rounds", memory, 20))

    folders = [memory / str(number) for number in range(20)]
    unsealed = [not examine(folder / "ledger").sealed for folder in folders]
    assert any(unsealed)  # killed between a row and its seal
    assert not all(unsealed)

    # Before the reservation nothing; then the round is spent; then it is drawn as well.
    over = "".join(str(check_covers(folder / "ledger", folder / "drawn")) for folder in folders)
    assert re.fullmatch("0+2+0+", over)


@pytest.mark.slow
def test_a_client_killed_at_random_moments_goes_on_each_time(tmp_path):
    finish(start("killed_at_random", tmp_path / "ledger", tmp_path / "drawn", 6))


@pytest.mark.slow
def test_a_first_creation_killed_at_any_point_is_begun_again(memory):
    finish(start("killed_creations", memory))
    folders = list(memory.iterdir())
    assert len(folders) > 30
    for folder in folders:
        account(folder / "ledger").reserve("round 1", ROUND)
        assert account(folder / "ledger").spent() == ROUND


def test_a_transaction_killed_half_way_is_undone(memory):
    path, copy = memory / "ledger", memory / "copy"
    play(account(path), memory / "drawn", 1)
    intact = path.read_bytes()
    process = start("killed_transaction", path)
    process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() != intact
    assert examine(path).fault
    shutil.copyfile(path, copy)

    assert account(path).spent() == ROUND
    assert path.read_bytes() == intact
    assert copy.read_bytes() != intact


def allowed(budget):
    """How many rounds the budget allows."""
    return next(n for n in range(1000) if filter_epsilon(ROUND * (n + 1), budget) > budget.epsilon)


@pytest.mark.slow
def test_two_processes_together_never_spend_more_than_the_budget(memory):
    path = memory / "ledger"
    budget = Budget(1.75, BUDGET.delta)
    most = allowed(budget)
    assert 100 < most < 140

    granted = json.loads(finish(start("spend_together", path, 100, budget.epsilon)))

    ours = account(path, budget)
    assert len(granted[0]) + len(granted[1]) == most
    assert min(map(len, granted)) > 10  # they took turns
    assert len(set(granted[0] + granted[1])) == most
    assert ours.spent() == ROUND * most
    assert filter_epsilon(ours.spent(), budget) <= budget.epsilon
    assert ours.statement().left < 0.1
    rows = examine(path).rows
    assert sorted(granted[0] + granted[1]) == [r.sequence for r in rows if r.kind == "reserve"]


@pytest.mark.parametrize("shared", [True, False])
def test_threads_together_never_spend_more_than_the_budget(memory, shared):
    path = memory / "ledger"
    budget = Budget(0.5, 1e-5)
    most = allowed(budget)
    one = Ledger(path)
    granted, refused = [], []

    def spend():
        ours = (one if shared else Ledger(path)).account(ledger_worker.DATA, budget)
        for number in range(most):
            try:
                granted.append(ours.reserve(f"round {number}", ROUND).sequence)
            except BudgetError:
                refused.append(number)

    threads = [threading.Thread(target=spend) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == len(set(granted)) == len(refused) == most > 1
    assert account(path, budget).spent() == ROUND * most


def test_threads_may_share_one_account(memory):
    ours = account(memory / "ledger")
    threads = [
        threading.Thread(target=play, args=(ours, memory / f"drawn {number}", number))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [release["state"] for release in ours.statement().releases] == ["sent"] * 4
