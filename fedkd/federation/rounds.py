"""The round loop, over any Flower grid.

A round: broadcast -> client: teacher learns -> release gate -> wire -> server: aggregate, distil ->
student -> evaluate -> keep. This file alone fixes that order, but for rounds that wait for nobody,
which are in `asynchronous.loop`. A method may have the next broadcast sent before it distils: then
clients are a round ahead of what is kept, by one at most.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial

from flwr.serverapp import Grid
from torch import nn

from fedkd.exchange.messages import Broadcast
from fedkd.federation.ahead import Ahead
from fedkd.federation.answers import Answers, Observer
from fedkd.federation.asynchronous.arrivals import Script
from fedkd.federation.asynchronous.loop import go_on as asynchronously
from fedkd.federation.cohort import (
    LOCAL,
    Connected,
    Connections,
    ask,
    require_quorum,
    wait_for_nodes,
)
from fedkd.federation.prepare import PreparedExperiment
from fedkd.federation.server import Keeper, ServerParty
from fedkd.federation.spending import no_ledger
from fedkd.federation.state import may_be_ahead
from fedkd.federation.summing import ask_for_sum
from fedkd.federation.tampering import Tamper, tamper_with
from fedkd.federation.wire import LedgerHead
from fedkd.privacy.ledger import Ledger


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
    script: Script | None = None,
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
        script: who answers when, where rounds are asynchronous and simulated; None: as the
            experiment has it.

    Returns:
        The student.

    Raises:
        BudgetError: privacy budgets do not allow the run to go on.
        QuorumError: too few clients answered a round, or not all of a sum's.
        FederationError: too few clients are connected, or a training diverged.
        StorageError: what must be kept cannot be; nothing of the round is.
    """
    experiment, count = prepared.experiment, prepared.setting.clients
    nodes = wait_for_nodes(grid, count, connections, quorum=prepared.setting.quorum(count))
    last = keeper.resume()
    known = _latest(ledger_heads or {}, {} if last is None else last.ledger_heads)
    strangers = connections.nodes is not None
    server = ServerParty.of(
        prepared, observer, last, threads=threads, ledger=ledger, strangers=strangers
    )
    averages = tamper is None and server.robust is None and _only_averages(prepared)
    clients = Connected(
        grid, prepared, nodes, connections, observer, known, server.state, averages=averages
    )
    if (how := experiment.clients.asynchronous) is not None:
        asynchronously(server, clients, keeper, last, how, script=script, tamper=tamper)
        return server.student
    broadcast = server.begin() if last is None else last.broadcast
    # On one thread clients would only take the server's time.
    overlaps = may_be_ahead(experiment) and (threads > 1 or strangers)
    with Ahead(clients) as ahead:
        for round in range(1 if last is None else last.round + 1, experiment.rounds + 1):
            started = time.perf_counter()
            answers = ahead.answers(round, broadcast) or _asked(clients, round, broadcast)
            if tamper is not None:
                tamper_with(answers, tamper, prepared, round, broadcast)
            require_quorum(prepared, round, answers)
            goes_on = overlaps and round < experiment.rounds
            announce = partial(ahead.ask, round + 1) if goes_on else None
            step = server.step(round, answers, started=started, announce=announce)
            keeper.keep(step.record, server.checkpoint(step, known), step.generated)
            observer.round_ends(step.record)
            broadcast = step.broadcast
            del answers, step  # or they stay until the next are there
    return server.student


def _asked(clients: Connected, round: int, broadcast: Broadcast) -> Answers:
    """What a round's cohort answers."""
    setting = clients.prepared.setting
    cohort = setting.cohort(round)
    clients.observer.round_begins(round, cohort)
    asking = ask_for_sum if setting.securely else ask
    return asking(clients, cohort, broadcast, round)


def _only_averages(prepared: PreparedExperiment) -> bool:
    """Whether clients' models are averaged by count, and nothing else is asked of any one."""
    clients, method = prepared.experiment.clients, type(prepared.method)
    # A subclass may inherit the card of what its own server part is not.
    author = next(each for each in method.__mro__ if "server" in vars(each))
    own = vars(author).get("card")
    says = own is not None and own.averages and method.card.averages
    plain = clients.max_weight is None and clients.asynchronous is None
    return says and plain and not prepared.setting.securely


def _latest(*known: Mapping[int, LedgerHead]) -> dict[int, LedgerHead]:
    """Of each client, where its ledger stood last."""
    latest: dict[int, LedgerHead] = {}
    for client, at in (pair for heads in known for pair in heads.items()):
        if client not in latest or latest[client].sequence < at.sequence:
            latest[client] = at
    return latest
