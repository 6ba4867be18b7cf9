"""The round loop, over any Flower grid.

A round: broadcast -> client: teacher learns -> release gate -> wire -> server: aggregate, distil ->
student -> evaluate -> keep. This file alone fixes that order.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from flwr.serverapp import Grid
from torch import Tensor, nn

from fedkd.clock import Clock
from fedkd.data.types import Samples
from fedkd.errors import FederationError, UnpaidError
from fedkd.exchange.codec import encode
from fedkd.exchange.messages import Broadcast, Tensors
from fedkd.federation.answers import Observer, Record
from fedkd.federation.cohort import (
    LOCAL,
    Connected,
    Connections,
    ask,
    require_quorum,
    wait_for_nodes,
)
from fedkd.federation.prepare import PreparedExperiment
from fedkd.federation.record import describe
from fedkd.federation.spending import Spending, no_ledger
from fedkd.federation.summing import ask_for_sum
from fedkd.federation.tampering import Tamper, tamper_with
from fedkd.federation.wire import LedgerHead
from fedkd.methods.core.base import ServerContext
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


class Keeper(Protocol):
    """Where finished rounds go: a run folder, say."""

    def resume(self) -> Checkpoint | None:
        """The last round that was kept; None to begin."""

    def keep(self, record: Record, checkpoint: Checkpoint, generated: Samples | None) -> None:
        """Keep a finished round, so that a process killed right after goes on from it.

        What clients on this machine keep may not be on the disk yet: see `state.DiskState`.
        """


def federate(
    grid: Grid,
    prepared: PreparedExperiment,
    keeper: Keeper,
    observer: Observer,
    *,
    threads: int,
    ledger: Callable[[], Ledger] = no_ledger,
    connections: Connections = LOCAL,
    ledger_heads: Mapping[int, LedgerHead] | None = None,
    tamper: Tamper | None = None,
) -> nn.Module:
    """Run an experiment's rounds, going on after the last one that was kept.

    Args:
        grid: the clients, behind any Flower grid.
        prepared: the experiment, prepared.
        keeper: keeps finished rounds.
        observer: is told what happens.
        threads: for the server's work that can be split without changing its result.
        ledger: opens the server's own ledger; called only under a client unit.
        connections: how clients are reached.
        ledger_heads: where clients' ledgers stood when they last answered, in whatever run.
        tamper: what hostile clients send in place of their own answers; None: nobody is hostile.

    Returns:
        The student.

    Raises:
        BudgetError: privacy budgets do not allow the run to go on.
        QuorumError: too few clients answered a round, or not all of a sum's.
        FederationError: too few clients are connected, or a training diverged.
        StorageError: what must be kept cannot be; nothing of the round is.
    """
    method, experiment = prepared.method, prepared.experiment
    count = prepared.setting.clients
    nodes = wait_for_nodes(grid, count, connections, quorum=prepared.setting.quorum(count))
    student = prepared.setting.student.build(experiment.student.model, purpose="student")
    last = keeper.resume()
    state = {} if last is None else dict(last.state)
    known = _latest(ledger_heads or {}, {} if last is None else last.ledger_heads)
    clients = Connected(grid, prepared, nodes, connections, observer, known)
    spending = None
    if prepared.experiment.privacy.unit in ("client-votes", "client-logits"):
        spending = Spending.of_clients(prepared, ledger())
    asking = ask_for_sum if prepared.setting.securely else ask
    context = partial(_context, prepared, observer, student, state, threads)
    if last is None:
        broadcast = method.begin(context(0))
    else:
        student.load_state_dict(dict(last.student))
        broadcast = last.broadcast

    for round in range(1 if last is None else last.round + 1, experiment.rounds + 1):
        started = time.perf_counter()
        cohort = prepared.setting.cohort(round)
        observer.round_begins(round, cohort)
        answers = asking(clients, cohort, broadcast, round)
        if tamper is not None:
            tamper_with(answers, tamper, prepared, round, broadcast)
        require_quorum(prepared, round, answers)
        answered = time.perf_counter()

        ctx = context(round)
        ctx.allowance = None if spending is None else spending.reserve(round)
        ctx.summed = None if answers.total is None else len(answers.uploads)
        broadcast = method.server(ctx, answers.for_method)
        if ctx.allowance is not None:
            _release(ctx.allowance, student)

        server_head = None if spending is None else spending.ledger_head()
        record = describe(prepared, ctx, answers, server_head)
        ended = time.perf_counter()
        record["seconds"] |= {
            "total": ended - started,
            "clients": answered - started,
            "server": ended - answered,
        }
        keeper.keep(
            record,
            Checkpoint(round, student.state_dict(), state, broadcast, known, server_head),
            ctx.generated,
        )
        observer.round_ends(record)
    return student


def _latest(*known: Mapping[int, LedgerHead]) -> dict[int, LedgerHead]:
    """Of each client, where its ledger stood last."""
    latest: dict[int, LedgerHead] = {}
    for client, at in (pair for heads in known for pair in heads.items()):
        if client not in latest or latest[client].sequence < at.sequence:
            latest[client] = at
    return latest


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


def _context(
    prepared: PreparedExperiment,
    observer: Observer,
    student: nn.Module,
    state: dict[str, Tensor],
    threads: int,
    round: int,
) -> ServerContext:
    return ServerContext(
        setting=prepared.setting,
        round=round,
        student=student,
        state=state,
        clock=Clock(observer.server_does),
        threads=threads,
        test=prepared.data.test,
        pooled=prepared.data.pooled if prepared.experiment.privacy.unit == "none" else _no_pool,
    )
