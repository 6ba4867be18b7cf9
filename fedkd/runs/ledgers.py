"""Privacy, planned and spent: forecasts of experiments, and what the ledgers of parties say."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedkd import config
from fedkd.errors import LedgerError, UsageError
from fedkd.federation.engines import client_ledger, client_ledgers, server_ledger
from fedkd.privacy.chain import Anchor, beside, examine
from fedkd.privacy.ledger import Ledger
from fedkd.privacy.statement import Statement, read_statements
from fedkd.runs.folder import DEPLOYMENT, RunFolder


@dataclass(frozen=True)
class LedgerAccount:
    """What one account of a ledger says."""

    path: Path
    statement: Statement


def read(path: Path) -> list[LedgerAccount]:
    """What ledgers say: one file, those in a folder, or those of a run.

    A run's ledgers are also held against the heads that its server saw last.

    Raises:
        UsageError: there is no ledger at `path`.
        LedgerError: a ledger of the run is missing.
    """
    if (path / "config.toml").exists():
        return _of_run(path)
    files = list(_ledgers_in(path)) if path.is_dir() else [_required(path)]
    if not files:
        raise UsageError(
            f"folder {str(path)!r} holds no ledger: expected a ledger, a folder of them, or a run "
            "with privacy.epsilon"
        )
    return [LedgerAccount(file, each) for file in files for each in read_statements(file)]


def read_intact(path: Path) -> list[LedgerAccount]:
    """As `read`, of ledgers that are all intact.

    Raises:
        UsageError: as `read`.
        LedgerError: one was changed, cut or rolled back, or is missing.
    """
    accounts = read(path)
    for each in accounts:
        if each.statement.chain != "intact":
            raise LedgerError(f"ledger {str(each.path)!r}: {each.statement.chain}")
    return accounts


def allow(path: Path, epsilon: float) -> None:
    """Let each account of a ledger spend up to `epsilon` in all, as the data's owner may.

    Raises:
        UsageError: epsilon is not a positive number, or there is no ledger at `path`.
        LedgerError: the ledger cannot be believed.
    """
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise UsageError(f"epsilon is {epsilon:g}: expected a finite number > 0")
    Ledger(_required(path)).allow(epsilon)


def as_dict(accounts: Sequence[LedgerAccount]) -> dict[str, Any]:
    """The account with the most spent, or one that is broken; all of them under `dicts`."""
    worst = max(accounts, key=lambda each: (each.statement.chain != "intact", _epsilon(each)))
    dicts = [{"path": str(each.path), **asdict(each.statement)} for each in accounts]
    return {**asdict(worst.statement), "accounts": dicts}


def _ledgers_in(folder: Path) -> Iterator[Path]:
    """The ledgers under a folder: what has a seal beside it."""
    found = sorted(folder.expanduser().rglob("*.db"))
    return (file for file in found if file.is_file() and beside(file, ".seal").exists())


def _required(path: Path) -> Path:
    """`path`, if a ledger stands there or did: opening one that does not would make it."""
    if not any(beside(path, suffix).exists() for suffix in (".seal", ".key")):
        what = "is no ledger" if path.exists() else "does not exist"
        raise UsageError(f"ledger {str(path)!r} {what}: name the file of an existing one")
    return path


def _of_run(path: Path) -> list[LedgerAccount]:
    if (path / DEPLOYMENT).exists():
        raise UsageError(
            f"run {str(path)!r} was deployed, and its ledgers are where the spending is: at each "
            "site, or under a client unit at the server, ask for its state folder's ledger.db"
        )
    run, privacy = RunFolder(path), config.load(path / "config.toml").privacy
    # In this order, so that of a ledger that all clients share the newest head is kept.
    ledger_heads = sorted(run.ledger_heads().items(), key=lambda each: each[1].sequence)
    seen = {
        client_ledger(privacy, run.states, client): Anchor(at.sequence, at.head)
        for client, at in ledger_heads
    }
    # Also those that no kept answer speaks of: a client may have spent and then failed.
    files = {*seen, *client_ledgers(privacy, run.states), server_ledger(privacy, run.states)}
    anchors = {file: seen.get(file) for file in sorted(files) if file in seen or file.exists()}
    if not anchors:
        raise UsageError(
            f"run {str(path)!r} holds no ledger: "
            + ("its privacy.unit is 'none'" if privacy.unit == "none" else "nothing was spent yet")
        )
    missing = [file for file in anchors if not file.exists()]
    if missing:
        raise LedgerError(
            f"ledger {str(missing[0])!r} is missing, and the server saw its row "
            f"{seen[missing[0]].sequence}: restore it with its .seal and .key from a backup"
        )
    return [
        LedgerAccount(file, _anchored(file, each, anchor))
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


def _epsilon(account: LedgerAccount) -> float:
    return account.statement.epsilon or 0.0
