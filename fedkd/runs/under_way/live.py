"""What a run is at right now, as one small file, for whoever looks on from another process.

Rounds that are over stand in `rounds.jsonl`; this tells of the one under way. A thread of its own
replaces it once a second, so that neither clients nor server wait for it, and whoever sees it
change knows that the run is alive. No resume reads it, and a run goes on where its disk refuses it.
"""

import json
import os
import platform
import threading
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import Field

from fedkd.errors import FedkdError, StorageError
from fedkd.federation.answers import Record, step_in_words
from fedkd.files import write_atomically
from fedkd.runs.reading import parse, text
from fedkd.runs.scores import RunPart, ShownScore
from fedkd.tasks import Figures

FILE = "live.json"
EVERY = 1.0
"""Seconds between two writes."""
_LISTED = 100
"""Clients of a phase that are listed; a federation may have a million."""
_LONGEST = 300
"""Characters of a reason."""


class ClientPhases(RunPart):
    """The clients of a round, each in one phase; of each phase all are counted and some listed."""

    asked: tuple[int, ...] = ()
    """Asked; perhaps at work, where clients are apart and do not tell."""
    training: dict[int, str] = Field(default_factory=dict)
    """At work, and at what."""
    answered: tuple[int, ...] = ()
    lost: dict[int, str] = Field(default_factory=dict)
    """Left out of the round, and why."""
    counts: dict[Literal["asked", "training", "answered", "lost"], int]


class Live(RunPart):
    """`live.json`: what a run is at."""

    host: str
    """The machine's name while the run goes on; empty once it is over."""
    pid: int = Field(gt=0, lt=2**31)  # which is looked for: a negative one is a group of processes
    beat: int
    """One more each time that the file is written."""
    state: Literal["running", "ended", "stopped", "failed"]
    why: str = ""
    """Why it failed."""
    score: ShownScore
    """The headline score of its rounds."""
    round: int | None = None
    """Whose clients are asked; the server may be at the round before still."""
    seconds: float
    """Since the last round ended, or the first began."""
    server: str = ""
    """What the server is at."""
    clients: ClientPhases


class LiveWriter:
    """An observer that keeps `live.json`. Use it as a context manager around the whole run.

    A finished run that is resumed for no further round stays as it is.

    Args:
        folder: the run folder, which exists.
        score: the headline score.
    """

    def __init__(self, folder: Path, score: Figures) -> None:
        self._path = folder / FILE
        self._score = {"name": score.name, "higher": score.higher, "share": score.share}
        self._finished = (folder / "summary.json").exists()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._state, self._why, self._beat = "running", "", 0
        self._since = time.monotonic()
        self._round: int | None = None
        self._server: tuple[str, int, int] | None = None
        self._asked: dict[int, None] = {}
        self._training: dict[int, tuple[str, int, int]] = {}
        self._answered: dict[int, None] = {}
        self._lost: dict[int, str] = {}

    def __enter__(self) -> Self:
        self._write()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._state = "ended" if error is None else "failed"
        if isinstance(error, KeyboardInterrupt | SystemExit):  # the second is how Flower stops one
            self._state = "stopped"
        elif error is not None:  # of one that was not foreseen a client may have chosen the words
            self._why = str(error) if isinstance(error, FedkdError) else type(error).__name__
        self._write()

    def round_begins(self, round: int, cohort: list[int]) -> None:
        """See `Observer`."""
        self._finished = False
        with self._lock:
            self._asked, self._round = dict.fromkeys(cohort), round
            self._training, self._answered, self._lost = {}, {}, {}
        if self._thread is None:  # not before: worker processes are forked by now
            self._thread = threading.Thread(target=self._keep_writing, daemon=True)
            self._thread.start()

    def client_does(self, client: int, phase: str, done: int, total: int) -> None:
        """See `Observer`."""
        with self._lock:
            if client not in self._lost:  # one that was given up may be at work still
                self._asked.pop(client, None)
                self._answered.pop(client, None)
                self._training[client] = phase, done, total

    def client_ends(self, client: int, failure: str | None) -> None:
        """See `Observer`."""
        with self._lock:
            # Where rounds are asynchronous it may end twice in one.
            for phase in (self._asked, self._training, self._answered, self._lost):
                phase.pop(client, None)
            if failure is None:
                self._answered[client] = None
            else:
                self._lost[client] = failure

    def server_does(self, phase: str, done: int, total: int) -> None:
        """See `Observer`."""
        self._server = phase, done, total

    def round_ends(self, record: Record) -> None:  # noqa: ARG002 - what it says is in rounds.jsonl
        """See `Observer`."""
        self._server, self._since = None, time.monotonic()

    def _keep_writing(self) -> None:
        self._write()
        while not self._over.wait(EVERY):
            self._write()

    def _write(self) -> None:
        if self._finished:
            return
        self._beat += 1
        with suppress(StorageError):
            write_atomically(self._path, json.dumps(self._content()), durable=False)

    def _content(self) -> dict[str, Any]:
        with self._lock:
            counts = {
                "asked": len(self._asked),
                "training": len(self._training),
                "answered": len(self._answered),
                "lost": len(self._lost),
            }
            asked, answered = (
                list(islice(each, _LISTED)) for each in (self._asked, self._answered)
            )
            training = {c: step_in_words(*at) for c, at in islice(self._training.items(), _LISTED)}
            lost = {c: why[:_LONGEST] for c, why in islice(self._lost.items(), _LISTED)}
        return {
            # Of a run that is over nobody looks for the process, and its folder may be given away.
            "host": platform.node() if self._state == "running" else "",
            "pid": os.getpid(),
            "beat": self._beat,
            "state": self._state,
            "why": self._why,
            "score": self._score,
            "round": self._round,
            "seconds": round(time.monotonic() - self._since, 2),
            "server": step_in_words(*self._server) if self._server else "",
            "clients": {
                "asked": asked,
                "training": training,
                "answered": answered,
                "lost": lost,
                "counts": counts,
            },
        }


def read_live(folder: Path) -> Live | None:
    """What a run is at; None where it does not say, as those of an earlier fedkd.

    Raises:
        RunFolderError: the file is corrupt.
    """
    file = folder / FILE
    return parse(Live, text(file), file) if file.is_file() else None
