"""What all clients of a run keep, for the clients and for whoever keeps the run."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Self

from fedkd.errors import StorageError
from fedkd.exchange.gate import Receipt
from fedkd.federation.state import stale
from fedkd.federation.store.contents import Contents, Place
from fedkd.federation.store.index import FILE, Index

_FOLDER = "store"
_STATE, _ANSWER = "state", "answer"
_LAST_RECEIPT = "SELECT number, chain FROM receipts ORDER BY number DESC LIMIT 1"

Until = Callable[[int], int]
"""Up to which round a client's state counts: of the last that was kept, as a rule."""


@dataclass(frozen=True, slots=True)
class StoreName:
    """What a store held at a moment, as a checkpoint names it.

    Attributes:
        receipts: how many; those that came later belong to what was cut off.
        sha256: of these, and of each client's latest state until then, in hexadecimal.
    """

    receipts: int
    sha256: str


class StateStore:
    """The states, answers and receipts of all clients of a run.

    Threads and processes may write at once. What a process that is killed had saved is there, and
    of what it was about to save there is nothing. Use it as a context manager, or close it.

    Args:
        folder: the clients'; in it the store has a folder of its own, which is made.
        back: how many rounds before the last are kept: see `state.rounds_back`.
        shared: as of `Index`.

    Raises:
        StorageError: it is damaged, or the disk does not give or take it.
    """

    def __init__(self, folder: Path, *, back: int = 1, shared: bool | None = None) -> None:
        self.folder = folder
        self._back = back
        self._index = Index(folder / _FOLDER, shared=shared)
        self._contents = Contents(folder / _FOLDER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of its files."""
        self._index.close()

    @staticmethod
    def file(folder: Path) -> Path:
        """The file without which a folder of clients has none."""
        return folder / _FOLDER / FILE

    def state(self, client: int, *, before: int) -> bytes | None:
        """What a client's latest round before `before` kept; None where it kept nothing."""
        found = self._read(
            "SELECT file, start, size FROM kept WHERE client = ? AND what = ? AND round < ? "
            "ORDER BY round DESC LIMIT 1",
            (client, _STATE, before),
        )
        return None if found is None else found[0]

    def answer(self, client: int, *, round: int) -> bytes | None:
        """What was about to leave a client in a round, if it was kept.

        Raises:
            StorageError: it, or what was kept with it, is not what it was.
        """
        found = self._read(
            "SELECT file, start, size, sha256, released FROM kept LEFT JOIN receipts "
            "ON number = receipt WHERE kept.client = ? AND what = ? AND kept.round = ?",
            (client, _ANSWER, round),
        )
        if found is None:
            return None
        sent: bytes
        sent, place, digest, released = found
        state = self._read(
            "SELECT file, start, size FROM kept WHERE client = ? AND what = ? AND round = ?",
            (client, _STATE, round),
        )
        if digest != _bound(released or "", b"" if state is None else state[0], sent):
            raise StorageError(
                f"{str(self._contents.path(place.file))!r}: what client {client} was about to send "
                f"in round {round}, or what was kept with it, is not what it was: restore it, or "
                "start anew"
            )
        return sent

    def save(
        self,
        client: int,
        state: bytes,
        receipts: Sequence[Receipt],
        *,
        round: int,
        answer: bytes | None,
    ) -> None:
        """See `ClientState.save`."""
        released = json.dumps([asdict(each) for each in receipts])
        what = {_STATE: (state, sha256(state).digest())} if state else {}
        if answer is not None:
            what[_ANSWER] = (answer, _bound(released, state, answer))
        durable = answer is not None
        with self._index.writing(durable=durable) as database:
            last, chain = database.execute(_LAST_RECEIPT).fetchone() or (0, b"")
            row = (last + 1, client, round, released)
            database.execute(
                "INSERT INTO receipts VALUES (?, ?, ?, ?, ?)", (*row, _link(chain, row))
            )
            for name, (content, digest) in what.items():
                place = self._contents.append(content, durable=durable)
                database.execute(
                    "INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (client, name, round, digest, last + 1, *place),
                )
                of_client = database.execute(
                    "SELECT round FROM kept WHERE client = ? AND what = ?", (client, name)
                ).fetchall()
                old = stale((each for (each,) in of_client), round, self._back)
                database.executemany(
                    "DELETE FROM kept WHERE client = ? AND what = ? AND round = ?",
                    [(client, name, each) for each in old],
                )

    def name(self, until: Until) -> StoreName:
        """What it holds now, all of which has then reached the disk.

        Args:
            until: up to which round a client's state counts.
        """
        [(last, chain)] = self._index.rows(_LAST_RECEIPT) or [(0, b"")]
        named = StoreName(last, _name(chain, self._latest(until, last)))
        self._contents.sync()
        self._index.sync()
        return named

    def differs(self, named: StoreName, until: Until) -> Path | None:
        """The file that does not hold what it held when it was named; None: all of them do.

        All that a run goes on from is looked at.

        Raises:
            StorageError: a file is missing, damaged or cannot be read.
        """
        chain = b""
        rows = self._index.rows(
            "SELECT number, client, round, released, chain FROM receipts WHERE number <= ? "
            "ORDER BY number",
            (named.receipts,),
        )
        for *row, linked in rows:
            if (chain := _link(chain, row)) != linked:
                return self._index.path
        latest = list(self._latest(until, named.receipts))
        if len(rows) != named.receipts or _name(chain, latest) != named.sha256:
            return self._index.path
        for _, _, digest, *place in latest:
            where = Place(*place)
            if sha256(self._contents.read(where)).digest() != digest:
                return self._contents.path(where.file)
        return None

    def forget(self, until: Until, *, named: StoreName | None = None) -> None:
        """Drop states of later rounds, for a run that goes on from there, and what is not `named`.

        One stays whose answer was about to leave when its round was cut off: it is sent again.

        Raises:
            StorageError: that answer, or what was kept with it, is not what it was.
        """
        last = math.inf if named is None else named.receipts
        rows = self._index.rows("SELECT DISTINCT client, round, receipt FROM kept")
        later = [(c, round) for c, round, receipt in rows if round > until(c) or receipt > last]
        gone = [each for each in later if self.answer(each[0], round=each[1]) is None]
        with self._index.writing() as database:
            database.executemany("DELETE FROM kept WHERE client = ? AND round = ?", gone)

    def sweep(self) -> None:
        """Delete the files of which nothing is needed any more, and make those half empty so.

        Call it after `name`, so that no loss of power brings back rows that point to them.
        """
        if not (full := self._contents.full()):
            return
        with self._index.writing(durable=True) as database:
            needed = dict(
                database.execute("SELECT file, sum(size) FROM kept GROUP BY file").fetchall()
            )
            emptied = [file for file, size in full.items() if 2 * needed.get(file, 0) < size]
            for file in emptied:
                self._move(database, file)
            self._contents.sync()
        self._contents.drop(emptied)

    def _move(self, database: Connection, file: int) -> None:
        """Add what is needed of a file to the last one."""
        rows = database.execute(
            "SELECT start, size, client, what, round FROM kept WHERE file = ?", (file,)
        )
        for start, size, *key in rows.fetchall():
            place = self._contents.append(self._contents.read(Place(file, start, size)))
            database.execute(
                "UPDATE kept SET file = ?, start = ?, size = ? "
                "WHERE client = ? AND what = ? AND round = ?",
                (*place, *key),
            )

    def last_round(self) -> int:
        """The latest that anything left a client in; 0 where nothing has."""
        [(last,)] = self._index.rows("SELECT coalesce(max(round), 0) FROM receipts")
        return int(last)

    def released(self) -> Iterator[list[dict[str, Any]]]:
        """What left clients in each round; of one that was run again, what left last."""
        rows = self._index.rows(
            "SELECT released, max(number) FROM receipts GROUP BY client, round "
            "ORDER BY client, round"
        )
        return (json.loads(released) for released, _ in rows)

    def _read(self, statement: str, values: Sequence[Any]) -> tuple[Any, ...] | None:
        """The content of the first row's place, then its place and what else the row has."""
        for last_try in (False, True):
            if not (rows := self._index.rows(statement, values)):
                return None
            file, start, size, *rest = rows[0]
            place = Place(file, start, size)
            try:
                return (self._contents.read(place), place, *rest)
            except StorageError:  # it was moved meanwhile, or it is gone
                if last_try:
                    raise
        return None

    def _latest(self, until: Until, receipts: int) -> Iterator[tuple[Any, ...]]:
        """Of each client the row of its latest state until then, in the order of clients.

        A client that was given up may end long after its round was kept, which named so many
        receipts: what it leaves is none of what was named.
        """
        rows = self._index.rows(
            "SELECT client, round, sha256, file, start, size FROM kept "
            "WHERE what = ? AND receipt <= ? ORDER BY client, round",
            (_STATE, receipts),
        )
        latest = {row[0]: row for row in rows if row[1] <= until(row[0])}
        return iter(latest.values())


def _link(chain: bytes, row: Sequence[Any]) -> bytes:
    """The SHA-256 of a receipt and of all before it."""
    return sha256(chain + json.dumps(list(row)).encode()).digest()


def _name(chain: bytes, latest: Iterable[tuple[Any, ...]]) -> str:
    """The SHA-256 of receipts and states, in hexadecimal."""
    lines = (f"{client} {round} {digest.hex()}\n" for client, round, digest, *_ in latest)
    return sha256(chain + "".join(lines).encode()).hexdigest()


def _bound(released: str, state: bytes, answer: bytes) -> bytes:
    """The SHA-256 of what is kept together."""
    parts = (released.encode(), state, answer)
    return sha256(b"".join(sha256(part).digest() for part in parts)).digest()


@lru_cache(maxsize=1)
def of_process(folder: Path, back: int, _process: int) -> StateStore:
    """The store as a worker process, named by its id, has it open until it ends."""
    return StateStore(folder, back=back)
