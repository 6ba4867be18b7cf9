"""Work on a ledger in processes of its own, some of which die.

`python ledger_worker.py JOB ARGUMENTS...` runs one job. A job that dies at many points forks a
child for each, so that the imports are paid once.
"""

import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path

from fedkd.errors import BudgetError
from fedkd.privacy.accountant import epsilon, filter_epsilon
from fedkd.privacy.budget import Budget
from fedkd.privacy.chain import examine
from fedkd.privacy.events import Gaussian, as_json, from_json
from fedkd.privacy.ledger import Ledger

DATA = b"d" * 32
BUDGET = Budget(4.0, 1e-5)
PLENTY = Budget(1e6, 1e-5)
ROUND = (Gaussian("training", 50.0, steps=3), Gaussian("count", 90.0))


def account(path, budget=BUDGET):
    return Ledger(path).account(DATA, budget)


def draw(log, events):
    """Noise is drawn: what an attacker gets, whatever the ledger says."""
    with log.open("a") as file:
        for event in events:
            file.write(json.dumps(as_json(event)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def drawn(log):
    return [from_json(json.loads(line)) for line in log.read_text().splitlines()]


def play(ours, log, number):
    reservation = ours.reserve(f"round {number}", ROUND)
    ours.touch(reservation, sampler="poisson", generator="philox")
    draw(log, ROUND)
    ours.settle(reservation, digest=f"{number:064x}")
    ours.send(reservation)


def point(action, kill_at=0):
    """Run `action` in a child, counting what it asks of the system, and SIGKILL it at `kill_at`.

    Returns:
        How often it asked; None if it was killed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        asked = 0

        def count(event, _):
            nonlocal asked
            if event.startswith(("open", "os.", "sqlite3.", "fcntl.")):
                asked += 1
                if asked == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        action()
        os.write(writing, str(asked).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    return int(told)


def killed_rounds(folder, count):
    """Folders 0 .. count - 1: a ledger whose third round was killed, each at another point."""
    base = folder / "base"
    for number in (1, 2):
        play(account(base / "ledger"), base / "drawn", number)

    def third(copy):
        ours = account(copy / "ledger")
        ours.spent()
        return lambda: play(ours, copy / "drawn", 3)

    points = point(third(shutil.copytree(base, folder / "whole")))
    for number in range(count):
        copy = shutil.copytree(base, folder / str(number))
        assert point(third(copy), 1 + number * (points - 1) // (count - 1)) is None


def killed_creations(folder):
    """Ledgers whose first creation was killed, at each point there is, some of them twice."""

    def create(name, kill_at=0):
        return point(lambda: Ledger(folder / name / "ledger"), kill_at)

    points = create("whole")
    for number in range(1, points + 1):
        assert create(f"once {number}", number) is None
    keyed = [path.parent for path in folder.glob("once */ledger.key")]
    begun = next(each for each in keyed if not (each / "ledger.seal").exists())
    for number in range(1, points + 1):
        shutil.copytree(begun, folder / f"twice {number}")
        assert create(f"twice {number}", number) is None


def killed_transaction(path):
    """Die while half of a transaction stands in the file, its journal beside it."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA cache_size=2")
    database.execute("BEGIN IMMEDIATE")
    for sequence in range(1000, 1100):
        row = (sequence, "a", "reserve", "x" * 3000, "", "")
        database.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?)", row)
    os.kill(os.getpid(), signal.SIGKILL)


def check_covers(path, log):
    """The ledger opens, counts at least what was drawn, and goes on.

    Returns:
        How many events it counts that were never drawn.
    """
    Ledger(path).allow(PLENTY.epsilon)
    ours = account(path, PLENTY)
    spent, true = ours.spent(), drawn(log)
    assert epsilon(spent, BUDGET.delta) >= epsilon(true, BUDGET.delta)
    assert not Counter(true) - Counter(spent)
    play(ours, log, 99)
    assert len(ours.spent()) == len(spent) + len(ROUND)
    assert examine(path).fault == ""
    return len(spent) - len(true)


def killed_at_random(path, log, count):
    """Rounds without end, killed `count` times; each time the ledger covers what was drawn."""
    moments = random.Random(3)
    play(account(path, PLENTY), log, 0)
    for _ in range(count):
        child = os.fork()
        if child == 0:
            ours = account(path, PLENTY)
            while True:
                play(ours, log, 1)
        time.sleep(moments.uniform(0.05, 0.4))
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        check_covers(path, log)


def spend_together(path, count, most):
    """Two processes ask for `count` rounds each; prints the rows that each was granted."""
    filter_epsilon(ROUND, BUDGET)  # imports, which take seconds, before both begin
    children = []
    for _ in range(2):
        reading, writing = os.pipe()
        if os.fork() == 0:
            granted = spend(account(path, Budget(most, 1e-5)), count)
            os.write(writing, json.dumps(granted).encode())
            os._exit(0)
        os.close(writing)
        children.append(reading)
    granted = [json.loads(os.fdopen(reading).read()) for reading in children]
    assert [os.wait()[1] for _ in children] == [0, 0]
    sys.stdout.write(json.dumps(granted))


def spend(ours, count):
    granted = []
    for number in range(count):
        try:
            granted.append(ours.reserve(f"{os.getpid()}, round {number}", ROUND).sequence)
        except BudgetError:
            continue
    return granted


if __name__ == "__main__":
    job, *rest = sys.argv[1:]
    if job == "killed_rounds":
        killed_rounds(Path(rest[0]), int(rest[1]))
    elif job == "killed_creations":
        killed_creations(Path(rest[0]))
    elif job == "killed_transaction":
        killed_transaction(Path(rest[0]))
    elif job == "killed_at_random":
        killed_at_random(Path(rest[0]), Path(rest[1]), int(rest[2]))
    elif job == "spend_together":
        spend_together(Path(rest[0]), int(rest[1]), float(rest[2]))
