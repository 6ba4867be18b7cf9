"""A chain of rows that many threads and processes write to, one row at a time, durably."""

import hashlib
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fedkd.errors import LedgerError, StorageError
from fedkd.files import write_atomically
from fedkd.privacy.chain import (
    FORMAT,
    Found,
    Row,
    beside,
    examine,
    key_identity,
    read_rows,
    seal_of,
)

RESTORE = (
    "restore it, its .seal and its .key from the newest backup; "
    "do not delete it, what it counted is spent"
)
_PATIENCE = 300.0  # seconds; who costs a large plan keeps the lock for some
_OF_THE_DISK = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
}
"""Errors that say nothing of what the file holds."""
_TABLE = """CREATE TABLE ledger (seq INTEGER PRIMARY KEY, account TEXT NOT NULL, kind TEXT NOT NULL,
    body TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL)"""


class ChainFile:
    """The chain in the file at `path`, which is made if there is none.

    Raises:
        LedgerError: the file, its seal or its key is not what this class wrote last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: Found | None = None
        with self._alone():
            self._create()
            self._read()
            self.key = beside(path, ".key").read_bytes()

    @contextmanager
    def locked(self) -> Iterator[Sequence[Row]]:
        """All rows, checked, while every other writer is kept out. Does not nest."""
        with self._alone():
            yield self._read().rows

    def append(self, account: str, kind: str, body: Mapping[str, Any]) -> Row:
        """Write one row, durably. Call it inside `locked` only."""
        if self._found is None:
            raise RuntimeError("Expected append() inside locked().")
        row = Row.after(self._found.rows[-1], account, kind, body)
        self._insert(row)
        self._seal([*self._found.rows, row])
        return row

    def refusal(self, wrong: str, remedy: str = RESTORE) -> LedgerError:
        """The error to raise that says what is `wrong`."""
        return LedgerError(f"ledger {self.path} {wrong}: {remedy}")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock, made anew each time, so that it keeps threads and forks apart as well."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(beside(self.path, ".lock"), timeout=_PATIENCE)
            with lock.acquire(poll_interval=0.005):
                yield
        except Timeout:
            wrong = f"is in use by another process since {_PATIENCE:g} s"
            raise self.refusal(wrong, "wait for that process or end it") from None
        except OSError as error:
            raise self._unstored(error.strerror or str(error)) from error
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OF_THE_DISK:
                raise self._unstored(str(error)) from error
            remedy = f"look at its folder's space and permissions; if they are right, {RESTORE}"
            raise self.refusal(f"cannot be read or written ({error})", remedy) from error

    def _unstored(self, reason: str) -> StorageError:
        return StorageError(
            f"ledger {str(self.path)!r}: {reason}; see to its disk's space and "
            "permissions; do not delete it, what it counted is spent"
        )

    def _create(self) -> None:
        """Make the chain, then its key, then its seal.

        By this order a creation that was killed, before which nothing can have been spent, differs
        from a file that was deleted: it left no seal, no row but the first, and no key alone.
        """
        seal, key = beside(self.path, ".seal"), beside(self.path, ".key")
        if seal.exists():
            return
        if self.path.exists():
            self._recover()
            if not self._begun(key):
                raise self.refusal(f"has no seal {seal.name} or is no ledger")
            key.unlink(missing_ok=True)
            self.path.unlink()
        elif key.exists():
            raise self.refusal(f"was deleted, its key {key.name} is still there")
        secret = secrets.token_bytes(32)
        first = Row.after(None, "", "genesis", {"format": FORMAT, "key": key_identity(secret)})
        self._insert(first, _TABLE)
        _write_secret(key, secret)
        self._seal([first])

    def _begun(self, key: Path) -> bool:
        content = self.path.read_bytes()
        rows, _ = read_rows(content)
        return [row.kind for row in rows] == ["genesis"] or not (content or key.exists())

    def _read(self) -> Found:
        self._recover()
        if not self.path.exists():
            raise self.refusal("was deleted, its seal is still there")
        found = examine(self.path, self._found)
        if found.fault:
            raise self.refusal(found.fault)
        self._found = found
        return found if found.sealed else self._seal(found.rows)

    def _seal(self, rows: Sequence[Row]) -> Found:
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        write_atomically(beside(self.path, ".seal"), seal_of(rows[-1], digest))
        self._found = Found(rows, digest, fault="")
        return self._found

    def _insert(self, row: Row, *before: str) -> None:
        with self._connected() as database:
            database.execute("BEGIN IMMEDIATE")
            for statement in before:
                database.execute(statement)
            database.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?)", astuple(row))
            database.execute("COMMIT")

    def _recover(self) -> None:
        """Let SQLite undo what a writer that was killed had not committed."""
        if beside(self.path, "-journal").exists() and self.path.exists():
            with self._connected() as database:
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction.

        Not WAL, though it would cost a little less: with a log beside it the file alone is not the
        truth, and the seal, which is a hash of the file, would vouch for half of it. With DELETE
        the removal of the journal is the commit, and EXTRA makes that removal durable.
        """
        with closing(sqlite3.connect(self.path, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode=DELETE")
            database.execute("PRAGMA synchronous=EXTRA")
            yield database


def _write_secret(path: Path, secret: bytes) -> None:
    """Readable by its owner only, from the first moment on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
