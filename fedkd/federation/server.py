"""The server of a run: what it remembers, and its step from answers to the next broadcast."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, Self

from torch import Tensor, nn

from fedkd.clock import Clock
from fedkd.config.robust import Robust
from fedkd.data.types import Samples
from fedkd.errors import FederationError, UnpaidError
from fedkd.exchange.codec import encode
from fedkd.exchange.messages import Broadcast, Tensors
from fedkd.federation.answers import Answers, Observer, Record
from fedkd.federation.asynchronous.in_flight import InFlight
from fedkd.federation.prepare import PreparedExperiment
from fedkd.federation.record import describe
from fedkd.federation.spending import Spending
from fedkd.federation.wire import LedgerHead
from fedkd.methods.core.base import ServerContext, Uploads
from fedkd.methods.core.screening import screened
from fedkd.privacy.allowance import Allowance
from fedkd.privacy.ledger import Ledger


@dataclass(frozen=True)
class Checkpoint:
    """All that the server must remember to go on after `round`."""

    round: int
    student: Tensors
    state: Tensors
    broadcast: Broadcast
    ledger_heads: Mapping[int, LedgerHead] = field(default_factory=dict)
    """Where each client's ledger stood when it last answered."""
    server_head: LedgerHead | None = None
    """Where the server's own ledger stood, under a client unit."""
    in_flight: InFlight | None = None
    """Where rounds are asynchronous, what clients are at work on, and what they said before."""


class Keeper(Protocol):
    """Where finished rounds go: a run folder, say."""

    def resume(self) -> Checkpoint | None:
        """The last round that was kept; None to begin."""

    def keep(self, record: Record, checkpoint: Checkpoint, generated: Samples | None) -> None:
        """Keep a finished round, so that a process killed right after goes on from it.

        What clients on this machine keep may not be on the disk yet: see `state.DiskState`.
        """


@dataclass(frozen=True)
class Step:
    """What the server made of a round's answers."""

    round: int
    broadcast: Broadcast
    """What clients receive next."""
    record: Record
    ledger_head: LedgerHead | None
    """Where the server's own ledger stands, under a client unit."""
    generated: Samples | None
    """What a data-free method made up."""


@dataclass(frozen=True)
class ServerParty:
    """The server of a run, with what changes from round to round: the student and `state`."""

    prepared: PreparedExperiment
    observer: Observer
    threads: int
    """For work that can be split without changing its result."""
    student: nn.Module
    state: dict[str, Tensor]
    """The method's own."""
    spending: Spending | None
    """By its own ledger, under a client unit."""
    robust: Robust | None
    """What is done about clients that lie."""

    @classmethod
    def of(
        cls,
        prepared: PreparedExperiment,
        observer: Observer,
        last: Checkpoint | None,
        *,
        threads: int,
        ledger: Callable[[], Ledger],
        strangers: bool = False,
    ) -> Self:
        """The server as it was after the last round that was kept; None: as it begins.

        Where clients are strangers it screens them, unless the experiment says what else to do.

        Raises:
            BudgetError: its budget does not allow the experiment.
        """
        student = prepared.setting.student.build(
            prepared.experiment.student.model, purpose="student"
        )
        if last is not None:
            student.load_state_dict(dict(last.student))
        clients_unit = prepared.experiment.privacy.unit in ("client-votes", "client-logits")
        return cls(
            prepared=prepared,
            observer=observer,
            threads=threads,
            student=student,
            state={} if last is None else dict(last.state),
            spending=Spending.of_clients(prepared, ledger()) if clients_unit else None,
            robust=prepared.experiment.robust or (_default(prepared) if strangers else None),
        )

    def begin(self) -> Broadcast:
        """What the first round's clients receive."""
        return self.prepared.method.begin(self._context(0))

    def step(
        self,
        round: int,
        answers: Answers,
        *,
        started: float,
        announce: Callable[[Broadcast], None] | None = None,
    ) -> Step:
        """Aggregate a round's answers and distil them into the student.

        Args:
            round: from 1.
            answers: what was let in.
            started: when the round began, by `time.perf_counter`.
            announce: sends the next round's calls, for methods that know them before they distil;
                None: they wait.

        Raises:
            BudgetError: the server's own ledger does not allow it.
            FederationError: a training diverged, or a method let out what it should protect.
        """
        answered = time.perf_counter()
        ctx = self._context(round)
        told = partial(self._told, round, answers, [])
        ctx.announcing = None if announce is None else lambda sent: announce(told(sent))
        ctx.allowance = None if self.spending is None else self.spending.reserve(round)
        ctx.summed = None if answers.total is None else len(answers.uploads)
        ctx.running = answers.running
        broadcast = told(self.prepared.method.server(ctx, self._heard(ctx, answers)))
        if ctx.allowance is not None:
            _release(ctx.allowance, self.student)
        ledger_head = None if self.spending is None else self.spending.ledger_head()
        record = describe(self.prepared, ctx, answers, ledger_head)
        ended = time.perf_counter()
        record["seconds"] |= {
            "total": ended - started,
            "clients": answered - started,
            "server": ended - answered,
        }
        return Step(round, broadcast, record, ledger_head, ctx.generated)

    def _told(
        self,
        round: int,
        answers: Answers,
        known: list[tuple[Broadcast, Broadcast]],
        broadcast: Broadcast,
    ) -> Broadcast:
        """What is said next, as it crosses the wire; what both sides have now is remembered.

        What was announced is `known`, and is not written again.
        """
        if (forms := self.prepared.forms) is None:
            return broadcast
        if known and known[0][0] is broadcast:
            return known[0][1]
        told, keep = forms.told(
            broadcast,
            self.state,
            round,
            answered=answers.uploads.keys() - answers.forged,
            clients=self.prepared.setting.clients,
        )
        self.state.update(keep | forms.to_keep(answers.uploads))
        known[:] = [(broadcast, told)]
        return told

    def _heard(self, ctx: ServerContext, answers: Answers) -> Uploads:
        """What the method is given: all that was let in, or of whom agrees with the rest."""
        if ctx.robust is None or not ctx.robust.screen:
            return answers.for_method
        with ctx.clock.phase("screen"):
            heard, ctx.screened = screened(
                self.prepared.method, ctx, ctx.robust, answers.for_method
            )
        return heard

    def checkpoint(
        self,
        step: Step,
        ledger_heads: Mapping[int, LedgerHead],
        in_flight: InFlight | None = None,
    ) -> Checkpoint:
        """What a run goes on from after a step."""
        return Checkpoint(
            step.round,
            self.student.state_dict(),
            self.state,
            step.broadcast,
            dict(ledger_heads),  # as of now: clients may be a round ahead
            step.ledger_head,
            in_flight,
        )

    def _context(self, round: int) -> ServerContext:
        data, unit = self.prepared.data, self.prepared.experiment.privacy.unit
        scored = self.prepared.scoring.happens(round)
        return ServerContext(
            setting=self.prepared.setting,
            round=round,
            student=self.student,
            state=self.state,
            clock=Clock(self.observer.server_does),
            threads=self.threads,
            test=self.prepared.scoring.records(round) if scored else None,
            pooled=data.pooled if unit == "none" else _no_pool,
            robust=self.robust,
        )


def _default(prepared: PreparedExperiment) -> Robust | None:
    """What is done about strangers: none of it where nobody's own answer may be looked at."""
    seen = prepared.experiment.privacy.unit in ("none", "record") and not prepared.setting.securely
    return Robust() if seen else None


def _release(allowance: Allowance, student: nn.Module) -> None:
    """Write down what a server lets out under a client unit.

    Raises:
        FederationError: the method combined the answers without `ctx.protect`, so without noise.
    """
    if not allowance.used:
        raise FederationError(
            "the method's card says client_units, and its server part did not ask ctx.protect of "
            "the answers that it combined: nothing was protected and nothing is kept"
        )
    allowance.settle(encode(student.state_dict()))
    allowance.send()


def _no_pool() -> Samples:
    raise UnpaidError(
        "ctx.pooled hands out all clients' private data, which privacy.unit protects: only a "
        "method that runs without differential privacy may ask for it"
    )
