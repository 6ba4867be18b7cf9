"""A round's cohort: who is asked, what is let in, and whether enough answered."""

import logging
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

import httpx
from flwr.app import Message
from flwr.serverapp import Grid

from fedkd.errors import BudgetError, FederationError, MessageError, QuorumError, StorageError
from fedkd.exchange.aggregation.running import GROUP, RunningMean
from fedkd.exchange.codec import encode
from fedkd.exchange.messages import Broadcast, Tensors
from fedkd.federation import wire
from fedkd.federation.answers import Answers, Observer, Signals
from fedkd.federation.checking import LookedAt, Take, checked, look
from fedkd.federation.client import ACTION
from fedkd.federation.prepare import PreparedExperiment

log = logging.getLogger(__name__)

NO_DEADLINE = 7 * 24 * 3600.0
"""Flower drops a message after 12 hours unless told otherwise."""
_NAMED = 5
"""Reasons for failures that an error names, the most frequent first."""


@dataclass(frozen=True)
class Connections:
    """How a grid's clients are reached: what differs between a simulation and a deployment."""

    nodes: tuple[int, ...] | None = None
    """The node of each client, known beforehand; None: client i is the i-th node by id."""
    within: float = 120.0
    """Seconds that clients have to connect, before the first round."""
    poll: float = 0.02
    """Seconds between two looks at what has come in."""


LOCAL = Connections()
"""A grid in this process."""


@dataclass(frozen=True)
class Connected:
    """A run's clients as its server reaches them: what stays the same from round to round."""

    grid: Grid
    prepared: PreparedExperiment
    nodes: list[int]
    """The node of each client."""
    connections: Connections
    observer: Observer
    ledger_heads: dict[int, wire.LedgerHead]
    """Where each ledger stood when its client last answered; brought up to date by every answer."""
    state: Tensors = field(default_factory=dict)
    """The server's own, brought up to date by every step."""
    averages: bool = False
    """Whether models are averaged as they come in, and not held."""

    @property
    def deadline(self) -> float:
        """Seconds after which a call is given up."""
        return self.prepared.experiment.clients.deadline or NO_DEADLINE


def wait_for_nodes(grid: Grid, clients: int, connections: Connections, *, quorum: int) -> list[int]:
    """The node of each client, once all are connected.

    Where the nodes are known beforehand a quorum of them is enough in the end: who comes later
    joins the rounds then.

    Raises:
        FederationError: too few nodes after `connections.within` seconds.
    """
    needed = clients if connections.nodes is None else quorum
    end = time.monotonic() + connections.within
    while True:
        here = sorted(grid.get_node_ids())
        connected = (
            here if connections.nodes is None else [n for n in connections.nodes if n in here]
        )
        if len(connected) >= clients:
            break
        if time.monotonic() > end:
            if len(connected) >= needed:
                break
            least = f", or {needed} at least" if needed < clients else ""
            raise FederationError(
                f"{len(connected)} nodes are connected after {connections.within:.0f} s: "
                f"expected one for each of the {clients} clients{least}; start the missing sites "
                "('fedkd deploy status' names them), then go on with --resume"
            )
        time.sleep(connections.poll)
    return connected[:clients] if connections.nodes is None else list(connections.nodes)


@dataclass(frozen=True)
class Question:
    """What is asked of clients in one message."""

    action: str
    take: Take
    beside: Mapping[int, bytes] = field(default_factory=dict)
    """What is for a client alone, beside the broadcast."""


def ask(
    clients: Connected,
    cohort: list[int],
    broadcast: Broadcast,
    round: int,
    *,
    question: Question | None = None,
    deadline: float | None = None,
    signals: Signals | None = None,
) -> Answers:
    """Send the broadcast to a cohort and let in what comes back in time and in order.

    Each client is told where its ledger stood when it last answered, and one whose ledger has gone
    back since is left out. A `question` other than to learn, which None stands for, is a step on
    the way, which only a failure ends for a client. The `deadline` is the experiment's unless
    given.

    Raises:
        StorageError: in a simulation, a client's state cannot be kept or read: that is this
            machine's failure, not the client's, and the round is lost.
    """
    signals = signals or Signals()
    question = question or Question(ACTION, partial(checked, clients.prepared, state=clients.state))
    observer = clients.observer
    answers = Answers(cohort, ledger_heads=clients.ledger_heads)
    if clients.averages and len(cohort) > GROUP:
        answers.running = RunningMean(cohort)
    deadline = deadline or clients.deadline
    end = time.monotonic() + deadline
    waiting = push(clients, cohort, answers, broadcast, round, deadline, question)
    signals.sent.set()
    while waiting and time.monotonic() < end and not signals.stop.is_set():
        came = arrived(clients, waiting)
        for id, reply in came:
            client = waiting.pop(id)
            take_answer(clients, client, round, reply, answers, question)
            if answers.running is not None and client in answers.failures:
                answers.running.leave(client)
            if question.action == ACTION or client in answers.failures:
                observer.client_ends(client, answers.failures.get(client))
        if not came:
            time.sleep(clients.connections.poll)
    if answers.storage:  # now that nobody writes any more
        raise StorageError(answers.storage)
    for client in [] if signals.stop.is_set() else waiting.values():
        answers.failures[client] = f"no answer within {deadline:g} s"
        observer.client_ends(client, answers.failures[client])
    answers.uploads = dict(sorted(answers.uploads.items()))
    return answers


def arrived(clients: Connected, waiting: Collection[str]) -> list[tuple[str, Message | None]]:
    """What has come in, by the id of the call; None for what is no message at all."""
    grid = clients.grid
    if clients.connections.nodes is not None:
        return _one_by_one(grid, waiting)
    return [(m.metadata.reply_to_message_id, m) for m in grid.pull_messages(waiting)]


def _one_by_one(grid: Grid, waiting: Collection[str]) -> list[tuple[str, Message | None]]:
    """What has come in of strangers, by the call's id; None for what is no message at all.

    Flower rebuilds a message from what the sender made, its metadata too, and raises whatever that
    leads to. So whose answer it is follows from what was asked for, never from what came.
    """
    arrived: list[tuple[str, Message | None]] = []
    for id in waiting:
        try:
            replies = list(grid.pull_messages([id]))
        except httpx.TransportError:  # our own server, which is another matter
            raise
        except Exception:
            log.warning("an answer could not be read", exc_info=True)
            arrived.append((id, None))
        else:
            arrived += [(id, reply if isinstance(reply, Message) else None) for reply in replies]
    return arrived


def require_quorum(
    prepared: PreparedExperiment, round: int, answers: Answers, *, of: int | None = None
) -> None:
    """Refuse to go on with too few of the cohort, or `of` so many.

    Raises:
        QuorumError: names the round, the numbers and each kind of failure.
        BudgetError: likewise, where privacy budgets are among the reasons.
    """
    share = prepared.experiment.clients.quorum
    needed = prepared.setting.quorum(len(answers.cohort) if of is None else of)
    if len(answers.uploads) < needed:
        kinds = Counter(answers.failures.values()).most_common()
        why = ", ".join(f"{reason} ({count})" for reason, count in kinds[:_NAMED])
        why += f", and {len(kinds) - _NAMED} other reasons" if len(kinds) > _NAMED else ""
        error = BudgetError if answers.refused else QuorumError
        raise error(
            f"round {round}: {len(answers.uploads)} of {len(answers.cohort)} clients answered and "
            f"clients.quorum = {share:g} asks for {needed}: {why}"
        )


def push(
    clients: Connected,
    cohort: list[int],
    answers: Answers,
    broadcast: Broadcast,
    round: int,
    deadline: float,
    question: Question,
) -> dict[str, int]:
    """Send each client of the cohort its part; message ids to clients.

    What could not be sent is among the failures of `answers`.
    """
    payloads: dict[tuple[str, int | None], bytes] = {}
    messages = []
    for client in cohort:
        model = str(clients.prepared.experiment.client_model(client))
        key = (model, client if client in broadcast.by_client else None)
        if key not in payloads:
            payloads[key] = encode(broadcast.to(*key))
        beside = question.beside.get(client, b"")
        call = wire.Call(round, client, payloads[key], answers.ledger_heads.get(client), beside)
        answers.bytes_down += len(call.payload) + len(beside)
        messages.append(
            Message(
                wire.pack(call),
                dst_node_id=clients.nodes[client],
                message_type=f"train.{question.action}",
                group_id=str(round),
                ttl=deadline,
            )
        )
    waiting = dict.fromkeys(cohort, "")
    # Flower's word for a call that it did not take is None, or of all of them no word at all.
    ids = clients.grid.push_messages(messages)
    waiting |= {c: id or "" for c, id in zip(cohort, ids, strict=False)}
    lost = [client for client, id in waiting.items() if not id]
    answers.failures |= dict.fromkeys(lost, "the call could not be sent")
    return {id: client for client, id in waiting.items() if id}


def take_answer(
    clients: Connected,
    client: int,
    round: int,
    reply: Message | None,
    answers: Answers,
    question: Question,
) -> None:
    """Add a reply to the uploads, or its reason to the failures: a stranger's is scrubbed."""
    if isinstance(reply, LookedAt):
        found = reply.found
    else:
        stranger = clients.connections.nodes is not None
        found = look(clients.prepared, (round, client), reply, question.take, stranger=stranger)
    answers.bytes_up += found.bytes
    try:
        _note_ledger_head(found.ledger_head, client, answers)
    except MessageError as error:
        answers.failures[client] = str(error)
        return
    if found.upload is not None:
        answers.let_in(client, found.upload)
        return
    answers.failures[client] = found.failure
    answers.storage = answers.storage or found.storage
    if found.refused:
        answers.refused.add(client)


def _note_ledger_head(ledger_head: wire.LedgerHead | None, client: int, answers: Answers) -> None:
    """Remember where a ledger stands; what an answer that is refused has cost is spent as well.

    Raises:
        MessageError: the ledger has forgotten something.
    """
    if ledger_head is None:
        return
    last = answers.ledger_heads.get(client)
    if last is not None and ledger_head.sequence < last.sequence:
        raise MessageError("its ledger is older than when it last answered")
    answers.ledger_heads[client] = ledger_head
