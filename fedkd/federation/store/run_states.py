"""What the clients of a simulation keep, as whoever keeps the run sees it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedkd.federation.server import Checkpoint
from fedkd.federation.store.state_store import StateStore, StoreName, Until


@dataclass(frozen=True)
class RunStates:
    """The store in the folder of a run's clients; in a deployment there is none.

    Each call raises a `StorageError` where it is damaged, or the disk does not give or take it.
    """

    folder: Path

    @contextmanager
    def _open(self) -> Iterator[StateStore | None]:
        if not StateStore.file(self.folder).exists():
            yield None
            return
        with StateStore(self.folder) as store:
            yield store

    def name(self, last: Checkpoint) -> StoreName | None:
        """What a run that goes on from a checkpoint goes on from, once it has reached the disk."""
        with self._open() as store:
            return None if store is None else store.name(_until(last))

    def fault(self, named: StoreName, last: Checkpoint) -> str:
        """Which file does not hold what a checkpoint named; empty: all do."""
        file: Path | None = StateStore.file(self.folder)
        why = "is missing"
        with self._open() as store:
            if store is not None:
                file, why = store.differs(named, _until(last)), "is not as its checkpoint names it"
        return "" if file is None else f"{file.relative_to(self.folder.parent.parent)} {why}"

    def forget(self, last: Checkpoint | None, named: StoreName | None = None) -> None:
        """Drop what came after the checkpoint, but for answers that are to be sent again."""
        with self._open() as store:
            if store is not None:
                store.forget(_until(last), named=named)

    def sweep(self) -> None:
        """Make room, once the checkpoint stands."""
        with self._open() as store:
            if store is not None:
                store.sweep()

    def last_round(self) -> int:
        """The latest that anything left a client in; 0 where nothing has."""
        with self._open() as store:
            return 0 if store is None else store.last_round()

    def released(self) -> list[dict[str, Any]]:
        """What left the clients, by field and provenance, from their receipts."""
        totals: dict[tuple[str, str], dict[str, Any]] = {}
        with self._open() as store:
            for receipts in () if store is None else store.released():
                for receipt in receipts:
                    key = (receipt["field"], receipt["provenance"])
                    total = totals.setdefault(key, {"times": 0, "bytes": 0})
                    total["times"] += 1
                    total["bytes"] += receipt["bytes"]
        return [{"field": f, "provenance": p, **total} for (f, p), total in totals.items()]


def _until(last: Checkpoint | None) -> Until:
    """Up to which round each client's state counts: of who is at work, before what it is asked."""
    working = last.in_flight.working if last and last.in_flight else {}
    rounds = 0 if last is None else last.round
    return lambda client: working[client].round - 1 if client in working else rounds
