"""The database of a run's states: what was kept, of whom, when, and where it stands."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedkd.errors import StorageError
from fedkd.federation.store.contents import damaged
from fedkd.files import make_folder

FILE = "index.db"
_PATIENCE = 120.0
"""Seconds that a writer waits for the others; each takes milliseconds."""
_REMEDIES = {
    sqlite3.SQLITE_BUSY: "another process keeps it to itself: wait for it, or end it",
    sqlite3.SQLITE_CANTOPEN: "it must be there, and a folder that can be written",
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_IOERR: "see to its disk",
    sqlite3.SQLITE_PERM: "see to its permissions",
    sqlite3.SQLITE_READONLY: "see to its permissions",
}
"""Errors that say nothing of what the file holds."""
_TABLES = """
CREATE TABLE IF NOT EXISTS kept (
    client INTEGER, what TEXT, round INTEGER, sha256 BLOB NOT NULL, receipt INTEGER NOT NULL,
    file INTEGER NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (client, what, round)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS receipts (
    number INTEGER PRIMARY KEY, client INTEGER NOT NULL, round INTEGER NOT NULL,
    released TEXT NOT NULL, chain BLOB NOT NULL);
"""


class Index:
    """The database in a folder, which is made with it; for any number of threads and processes.

    A process that forks opens one of its own afterwards. Writers take turns. What was committed
    outlives the process; a loss of power, after `sync` or where it was to be `durable`.

    Args:
        folder: which is made.
        shared: whether several machines share the folder's disk, as the nodes of a cluster do; to
            be said by whoever opens it first. None: as it was said before, or that none do.

    Raises:
        StorageError: it is damaged, or the disk does not give or take it.
    """

    def __init__(self, folder: Path, *, shared: bool | None = None) -> None:
        self.path = folder / FILE
        self._alone = threading.RLock()
        make_folder(folder)
        new = not self.path.exists()
        with self._explained():
            self._connection = sqlite3.connect(
                self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            if new or shared is not None:
                # With a log beside the file a commit needs no fsync; it is for one machine alone.
                self._connection.execute(f"PRAGMA journal_mode={'DELETE' if shared else 'WAL'}")
            self._connection.executescript(_TABLES)

    def close(self) -> None:
        """Let go of it."""
        with self._explained():
            self._connection.close()

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """What a statement finds."""
        with self._explained():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def writing(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction while which nobody else writes; undone by an exception.

        Args:
            durable: it, and all before it, reaches the disk, against a loss of power.
        """
        with self._explained():
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def sync(self) -> None:
        """Let all that was committed reach the disk, into the file itself."""
        with self._explained():
            self._connection.execute("PRAGMA synchronous=NORMAL")
            [(busy, *_)] = self._connection.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
        if busy:
            raise self._refused(_REMEDIES[sqlite3.SQLITE_BUSY])

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with self._alone:
            try:
                yield
            except sqlite3.ProgrammingError:  # of ours: a client that hung goes on after the end
                raise
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
                if code in _REMEDIES:
                    raise self._refused(f"{error}; {_REMEDIES[code]}") from error
                raise damaged(self.path) from error

    def _refused(self, why: str) -> StorageError:
        return StorageError(f"{str(self.path)!r}: {why}")
