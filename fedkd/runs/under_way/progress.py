"""A run's progress as a file: one process writes what happens, another follows it.

The server's app of a deployment is no child of the command that submitted it.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedkd.federation.answers import Observer, Record
from fedkd.files import append

FILE = "progress.jsonl"


class ProgressWriter:
    """An observer that writes each thing it is told as a line."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def round_begins(self, round: int, cohort: list[int]) -> None:
        """See `Observer`."""
        self._write("round_begins", round, cohort)

    def client_does(self, client: int, phase: str, done: int, total: int) -> None:
        """See `Observer`; clients are elsewhere, and do not tell."""

    def client_ends(self, client: int, failure: str | None) -> None:
        """See `Observer`."""
        self._write("client_ends", client, failure)

    def server_does(self, phase: str, done: int, total: int) -> None:
        """See `Observer`."""
        self._write("server_does", phase, done, total)

    def round_ends(self, record: Record) -> None:
        """See `Observer`."""
        self._write("round_ends", record)

    def fails(self, error: str, status: int) -> None:
        """Say why the run ended, and with which exit status."""
        self._write("fails", error, status)

    def _write(self, what: str, *values: Any) -> None:
        # On a line of its own, even after half of one that a killed writer left.
        append(self._path, "\n" + json.dumps([what, *values]) + "\n", durable=False)


class Follower:
    """Reads what a `ProgressWriter` writes, from the beginning.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._at = 0
        self.failure: tuple[str, int] | None = None
        """Why the run failed, and its exit status."""

    def pass_on(self, observer: Observer) -> None:
        """Tell an observer what has happened since the last call."""
        for what, *values in self._lines():
            if what == "fails":
                self.failure = (values[0], values[1])
            else:
                getattr(observer, what)(*values)

    def _lines(self) -> Iterator[list[Any]]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):  # half of one; it is read when it is whole
                    return
                self._at += len(line)
                with suppress(json.JSONDecodeError):  # an empty line, or half of one
                    yield json.loads(line)
