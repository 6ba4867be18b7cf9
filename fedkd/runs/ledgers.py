"""Privacy, planned and spent: forecasts of experiments, and what the ledgers of parties say."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedkd import config
from fedkd.config import Experiment
from fedkd.errors import LedgerError, UsageError
from fedkd.federation import world
from fedkd.federation.engines import client_ledger, client_ledgers, server_ledger
from fedkd.methods import protection
from fedkd.methods.protection import Forecast
from fedkd.privacy.chain import Anchor, examine
from fedkd.privacy.events import Protected, from_json
from fedkd.privacy.ledger import Ledger
from fedkd.privacy.statement import Statement, read_statements
from fedkd.runs.folder import RunFolder


@dataclass(frozen=True)
class Told:
    """What one account of a ledger says."""

    path: Path
    statement: Statement


def forecast(experiment: Experiment, ledger: Path | None = None) -> Forecast:
    """What an experiment will cost in privacy, on top of what a ledger holds.

    Of a ledger with several accounts of the experiment's unit, the one with the most spent counts.

    Raises:
        UsageError: the experiment will not do, or it protects nothing.
        BudgetError: no noise is enough.
        LedgerError: the ledger is none, or cannot be believed.
    """
    return world.forecast(experiment, spent=_spent(experiment, ledger) if ledger else ())


def read(path: Path) -> list[Told]:
    """What ledgers say: one file, those in a folder, or those of a run.

    A run's ledgers are also held against the heads that its server saw last.

    Raises:
        LedgerError: there is no ledger at `path`.
    """
    if (path / "config.toml").exists():
        return _of_run(path)
    files = sorted(path.rglob("*.db")) if path.is_dir() else [path]
    if not files:
        raise LedgerError(
            f"folder {str(path)!r} holds no ledger: expected a ledger, a folder of them, or a run "
            "with privacy.epsilon"
        )
    return [Told(file, each) for file in files for each in read_statements(file)]


def allow(path: Path, epsilon: float) -> None:
    """Let each account of a ledger spend up to `epsilon` in all, as the data's owner may.

    Raises:
        UsageError: epsilon is not a positive number.
        LedgerError: there is no ledger at `path`, or it cannot be believed.
    """
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise UsageError(f"epsilon is {epsilon:g}: expected a finite number > 0")
    read_statements(path)  # refuses what is no ledger, where opening one would make it
    Ledger(path).allow(epsilon)


def as_dict(told: Sequence[Told]) -> dict[str, Any]:
    """The account with the most spent, or one that is broken; all of them under `accounts`."""
    worst = max(told, key=lambda each: (each.statement.chain != "intact", _epsilon(each)))
    accounts = [{"path": str(each.path), **asdict(each.statement)} for each in told]
    return {**asdict(worst.statement), "accounts": accounts}


def _of_run(path: Path) -> list[Told]:
    run, privacy = RunFolder(path), config.load(path / "config.toml").privacy
    seen = {
        client_ledger(privacy, run.states, client): Anchor(at.sequence, at.head)
        for client, at in run.standings().items()
    }
    # Also those that no kept answer speaks of: a client may have spent and then failed.
    files = {*seen, *client_ledgers(privacy, run.states), server_ledger(privacy, run.states)}
    anchors = {file: seen.get(file) for file in sorted(files) if file in seen or file.exists()}
    if not anchors:
        raise LedgerError(
            f"run {str(path)!r} holds no ledger: its privacy.unit is {privacy.unit!r}, or no round "
            "of it was kept"
        )
    return [
        Told(file, _anchored(file, each, anchor))
        for file, anchor in anchors.items()
        for each in read_statements(file)
    ]


def _anchored(path: Path, statement: Statement, anchor: Anchor | None) -> Statement:
    """The statement, with a fault in its chain if the ledger has forgotten what the server saw."""
    if anchor is None or statement.chain != "intact":
        return statement
    rows = examine(path).rows
    if anchor.sequence < len(rows) and rows[anchor.sequence].hash == anchor.digest:
        return statement
    fault = f"is not the one whose row {anchor.sequence} the server saw: an older copy, or another"
    return replace(statement, chain=fault)


def _spent(experiment: Experiment, ledger: Path) -> list[Protected]:
    allowed = protection.budget(experiment.privacy)
    told = [
        each
        for each in read(ledger)
        if allowed
        and (each.statement.unit, each.statement.adjacency) == (allowed.unit, allowed.adjacency)
    ]
    for each in told:
        if each.statement.chain != "intact":
            raise LedgerError(f"ledger {str(each.path)!r}: {each.statement.chain}")
    if not told:
        return []
    return [from_json(event) for event in max(told, key=_epsilon).statement.held]


def _epsilon(told: Told) -> float:
    return told.statement.epsilon or 0.0
