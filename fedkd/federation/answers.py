"""What a cohort sent back, and who is told about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Protocol

from fedkd.exchange.aggregation.running import RunningMean
from fedkd.exchange.messages import Tensors, group
from fedkd.federation.wire import LedgerHead

Record = dict[str, Any]
"""A line of `rounds.jsonl`: JSON values only; accuracies are shares of 1, times are seconds."""


def step_in_words(phase: str, done: int, total: int) -> str:
    """What an `Observer` is told of a phase, with its steps where there are several."""
    return f"{phase} {done}/{total}" if total > 1 else phase


class Observer(Protocol):
    """Whoever watches a federation."""

    def round_begins(self, round: int, cohort: list[int]) -> None:
        """The clients of a cohort are being asked; the server may be at the round before still."""

    def client_does(self, client: int, phase: str, done: int, total: int) -> None:
        """A client of this process entered a phase or made a step in it."""

    def client_ends(self, client: int, failure: str | None) -> None:
        """A client answered, or was left out for a reason."""

    def server_does(self, phase: str, done: int, total: int) -> None:
        """The server entered a phase or made a step in it."""

    def round_ends(self, record: Record) -> None:
        """A round is done and kept."""


class Unwatched:
    """An observer for when nobody watches."""

    def round_begins(self, round: int, cohort: list[int]) -> None:
        """See `Observer`."""

    def client_does(self, client: int, phase: str, done: int, total: int) -> None:
        """See `Observer`."""

    def client_ends(self, client: int, failure: str | None) -> None:
        """See `Observer`."""

    def server_does(self, phase: str, done: int, total: int) -> None:
        """See `Observer`."""

    def round_ends(self, record: Record) -> None:
        """See `Observer`."""


class Together:
    """An observer that passes on what it is told, to each of several in turn.

    Args:
        observers: who is told.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def round_begins(self, round: int, cohort: list[int]) -> None:
        """See `Observer`."""
        for each in self._observers:
            each.round_begins(round, cohort)

    def client_does(self, client: int, phase: str, done: int, total: int) -> None:
        """See `Observer`."""
        for each in self._observers:
            each.client_does(client, phase, done, total)

    def client_ends(self, client: int, failure: str | None) -> None:
        """See `Observer`."""
        for each in self._observers:
            each.client_ends(client, failure)

    def server_does(self, phase: str, done: int, total: int) -> None:
        """See `Observer`."""
        for each in self._observers:
            each.server_does(phase, done, total)

    def round_ends(self, record: Record) -> None:
        """See `Observer`."""
        for each in self._observers:
            each.round_ends(record)


@dataclass(frozen=True)
class Signals:
    """Between who asks on another thread and who goes on meanwhile."""

    sent: Event = field(default_factory=Event)
    """All calls are out."""
    stop: Event = field(default_factory=Event)
    """Nobody waits for the answers any more."""


@dataclass
class Answers:
    """What a cohort sent back."""

    cohort: list[int]
    uploads: dict[int, Tensors] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    """Those of the failures that a privacy budget or its ledger did not allow."""
    storage: str = ""
    """What a simulation's own disk refused, which ends it."""
    ledger_heads: dict[int, LedgerHead] = field(default_factory=dict)
    """Where each client's ledger stood when it last answered."""
    bytes_up: int = 0
    bytes_down: int = 0
    total: Tensors | None = None
    """Under secure aggregation the sum of all uploads, which are masked one by one."""
    running: RunningMean | None = None
    """The models of the uploads, averaged as they came in, where the method does no more."""
    asked: dict[int, int] = field(default_factory=dict)
    """Where rounds are asynchronous, the round that an upload answers, if not the step's own."""
    kept: dict[int, Tensors] = field(default_factory=dict)
    """Where rounds are asynchronous, what others than those of the uploads answered before."""

    forged: set[int] = field(default_factory=set)
    """Whose uploads are not what they wrote themselves, so that both sides remember another."""

    def let_in(self, client: int, upload: Tensors) -> None:
        """Add a client's upload; what is averaged of it is not held."""
        if self.running is not None:
            self.running.add(client, group("model", upload), float(upload["count"]))
            upload = {n: each for n, each in upload.items() if not n.startswith("model/")}
        self.uploads[client] = upload

    def by_client(self) -> "dict[int, Answers]":
        """Each client's alone; the bytes of all stand with the first."""
        apart = {}
        for client in self.cohort:
            own = Answers([client], ledger_heads=self.ledger_heads)
            own.uploads = {c: each for c, each in self.uploads.items() if c == client}
            own.failures = {c: why for c, why in self.failures.items() if c == client}
            own.refused = self.refused & {client}
            apart[client] = own
        apart[self.cohort[0]].bytes_up += self.bytes_up
        apart[self.cohort[0]].bytes_down += self.bytes_down
        return apart

    def add(self, others: "Answers") -> None:
        """Take in what came later; of a client that answered before, its later answer counts."""
        uploads = {**self.uploads, **others.uploads}
        self.after(others)
        self.uploads = uploads

    def after(self, step: "Answers") -> None:
        """Take in what a further step of the same round brought: who is left, and who is not."""
        self.uploads = step.uploads
        self.failures |= step.failures
        self.refused |= step.refused
        self.bytes_up += step.bytes_up
        self.bytes_down += step.bytes_down

    @property
    def for_method(self) -> Mapping[int, Tensors]:
        """What the method's server part is given."""
        if self.total is not None:
            return {0: self.total}
        return dict(sorted({**self.kept, **self.uploads}.items())) if self.kept else self.uploads
