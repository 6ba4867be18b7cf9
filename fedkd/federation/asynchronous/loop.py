"""The loop of asynchronous rounds: ask all, take what comes, make a step once enough has come.

A client that has answered is asked anew as soon as there is a broadcast that it has not had: at
once, if it is late, and otherwise after the step. So nobody trains on the same broadcast twice, and
in `rounds` steps nobody trains more than `rounds` times.
"""

import time
from dataclasses import dataclass, field, replace
from typing import Any

from fedkd.config import Asynchronous
from fedkd.exchange.messages import Broadcast, Tensors
from fedkd.federation.answers import Answers
from fedkd.federation.asynchronous import log
from fedkd.federation.asynchronous.arrivals import Arrivals, Posted, Script, Simulated, VirtualClock
from fedkd.federation.asynchronous.in_flight import AtWork, Awaited, InFlight, KeptUpload, snapshot
from fedkd.federation.cohort import Connected, require_quorum
from fedkd.federation.prepare import PreparedExperiment
from fedkd.federation.server import Checkpoint, Keeper, ServerParty
from fedkd.federation.tampering import Tamper, tamper_with
from fedkd.methods.core.lateness import moved_on


@dataclass
class _Window:
    """What comes between two steps."""

    round: int
    """The step that it is for."""
    broadcast: Broadcast
    """The newest."""
    flight: InFlight
    answers: Answers
    rounds: dict[int, int] = field(default_factory=dict)
    """By client of the uploads, the round that it answered."""
    moments: list[dict[str, Any]] = field(default_factory=list)


def go_on(
    server: ServerParty,
    clients: Connected,
    keeper: Keeper,
    last: Checkpoint | None,
    how: Asynchronous,
    *,
    script: Script | None = None,
    tamper: Tamper | None = None,
) -> None:
    """Make an experiment's steps, going on after the last one that was kept.

    Args:
        server: as it was then.
        clients: how they are reached; those of a simulation come by a virtual clock.
        keeper: keeps finished steps.
        last: the last step that was kept; None to begin.
        how: by what the server goes on.
        script: who comes when in a simulation; None: as the experiment gives it.
        tamper: as of `rounds.federate`.

    Raises:
        As `rounds.federate`.
    """
    prepared = server.prepared
    done = 0 if last is None else last.round
    broadcast = snapshot(server.begin() if last is None else last.broadcast)
    flight = None if last is None else last.in_flight
    if flight is None:
        flight = InFlight().asking(range(prepared.setting.clients), done + 1, broadcast)
    arrivals = _arrivals(clients, how, script, flight.now)
    if done < prepared.experiment.rounds:
        arrivals.post(flight, list(flight.working))
    for round in range(done + 1, prepared.experiment.rounds + 1):
        started = time.perf_counter()
        server.observer.round_begins(round, list(flight.working))
        answers = Answers([], ledger_heads=clients.ledger_heads)
        window = _Window(round, broadcast, flight, answers)
        _collect(window, prepared, arrivals, how, timed=_timed(clients))
        answers.asked = dict(window.rounds)
        if tamper is not None:
            tamper_with(answers, tamper, prepared, round, broadcast)
            refused = {c: w for c, w in answers.failures.items() if c not in answers.uploads}
            log.mark_refused(window.moments, refused)
        _require_enough(window, prepared, how)
        kept = _keep_answers(window, prepared, how)
        step = server.step(round, answers, started=started)
        step.record[log.KEY] = {
            "time": window.moments[-1]["time"],
            "moments": window.moments,
            "kept": [{"client": c, "staleness": round - kept[c].round} for c in answers.kept],
        }
        broadcast = snapshot(step.broadcast)
        idle = [c for c in range(prepared.setting.clients) if c not in window.flight.working]
        flight = replace(window.flight, kept=kept).asking(idle, round + 1, broadcast)
        checkpoint = server.checkpoint(step, clients.ledger_heads, flight)
        keeper.keep(step.record, checkpoint, step.generated)
        server.observer.round_ends(step.record)
        if round < prepared.experiment.rounds:
            arrivals.post(flight, idle)


def _arrivals(clients: Connected, how: Asynchronous, script: Script | None, now: float) -> Arrivals:
    if clients.connections.nodes is not None:
        return Posted(clients, now)
    deadline = clients.prepared.experiment.clients.deadline
    return Simulated(clients, script or VirtualClock(how, deadline))


def _timed(clients: Connected) -> bool:
    """Whether times may be written down: real ones tell how many records a client has."""
    simulated = clients.connections.nodes is None
    return simulated or clients.prepared.experiment.privacy.unit == "none"


def _collect(
    window: _Window,
    prepared: PreparedExperiment,
    arrivals: Arrivals,
    how: Asynchronous,
    *,
    timed: bool,
) -> None:
    """Take what comes until there are enough answers, or nobody is at work any more."""
    answers = window.answers
    while len(answers.uploads) < how.buffer and window.flight.working:
        missing = how.buffer - len(answers.uploads)
        now, came = arrivals.next(Awaited(window.round, missing, window.flight))
        asked = {client: window.flight.working[client] for client in came.cohort}
        outcomes = {c: _take(window, prepared, how, c, at, came) for c, at in asked.items()}
        moment = log.Moment(now, {c: at.round for c, at in asked.items()}, came.failures)
        window.moments.append(log.entry(moment, window.round, outcomes, timed=timed))
        answers.add(came)
        window.flight = window.flight.without(asked, now)
        if late := [client for client, at in asked.items() if at.round < window.round]:
            window.flight = window.flight.asking(late, window.round, window.broadcast)
            arrivals.post(window.flight, late)


def _take(
    window: _Window,
    prepared: PreparedExperiment,
    how: Asynchronous,
    client: int,
    asked: AtWork,
    came: Answers,
) -> log.Outcome:
    """Make a client's answer fit the newest broadcast, or leave it out for being too late."""
    if client not in came.uploads:
        return "failed"
    staleness = window.round - asked.round
    if staleness > how.staleness:
        del came.uploads[client]
        window.answers.failures[client] = (
            f"its answer is {staleness} steps late: clients.asynchronous.staleness is "
            f"{how.staleness}"
        )
        return "too late"
    if client in window.rounds:
        log.mark_replaced(window.moments, client)
    window.rounds[client] = asked.round
    if prepared.method.card.asynchronous == "models":
        start = window.flight.broadcasts[asked.round]
        came.uploads[client] = _moved_on(
            prepared, client, came.uploads[client], start, window.broadcast, staleness
        )
    return "used"


def _moved_on(
    prepared: PreparedExperiment,
    client: int,
    upload: Tensors,
    start: Broadcast,
    newest: Broadcast,
    staleness: int,
) -> dict[str, Any]:
    spec = prepared.experiment.client_model(client)
    model = prepared.setting.of_client(client).build(spec, purpose="specification")
    before, now = (each.to(str(spec), client) for each in (start, newest))
    return moved_on(model, upload, before, now, staleness=staleness)


def _require_enough(window: _Window, prepared: PreparedExperiment, how: Asynchronous) -> None:
    """Go on with fewer than the buffer only where nobody is left who could fill it.

    Raises:
        QuorumError, BudgetError: there are fewer than the quorum of the buffer.
    """
    answers = window.answers
    answers.uploads = dict(sorted(answers.uploads.items()))
    answers.failures = {c: why for c, why in answers.failures.items() if c not in answers.uploads}
    answers.cohort = sorted({*answers.uploads, *answers.failures})
    require_quorum(prepared, window.round, answers, of=how.buffer)


def _keep_answers(
    window: _Window, prepared: PreparedExperiment, how: Asynchronous
) -> dict[int, KeptUpload]:
    """What clients said last, those that are too old left out, where a method goes on using it."""
    if prepared.method.card.asynchronous != "answers":
        return {}
    answers = window.answers
    new = {c: KeptUpload(window.rounds[c], upload) for c, upload in answers.uploads.items()}
    kept = dict(sorted({**window.flight.kept, **new}.items()))
    kept = {c: each for c, each in kept.items() if window.round - each.round <= how.staleness}
    answers.kept = {c: each.upload for c, each in kept.items() if c not in new}
    return kept
