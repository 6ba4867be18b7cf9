"""The client app: the teacher learns, the gate opens, an answer leaves. One message a round.

Under a unit that protects records the ledger comes first: the whole plan, then the round's worst
case, are written down before any data is touched, and what leaves is written down before it does.
Under secure aggregation there are four messages, of which the third touches data.
"""

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from torch import Tensor

from fedkd.clock import Clock
from fedkd.errors import BudgetError, FedkdError, MessageError, PolicyError
from fedkd.exchange.codec import decode, encode
from fedkd.exchange.gate import release
from fedkd.exchange.messages import Tensors, group
from fedkd.federation import personal, report, wire
from fedkd.federation.prepare import PreparedExperiment
from fedkd.federation.secure import messages, steps
from fedkd.federation.secure.identity import Identity
from fedkd.federation.secure.steps import Masking, SumMember
from fedkd.federation.spending import Owner, Spending, no_ledger
from fedkd.federation.state import ClientState
from fedkd.methods.core.base import ClientContext
from fedkd.methods.core.sums import RELEASED
from fedkd.privacy.ledger import Ledger

log = logging.getLogger(__name__)

ACTION = "learn"
_TEACHER = "teacher"
_STAGE = "stage"
"""Where a client's state says in which stage it was left, where data comes in stages."""

Watcher = Callable[[int, str, int, int], None]
"""Called with a client, its phase, steps done and steps in all."""

WATCHER: ContextVar[Watcher] = ContextVar("watcher")
"""Whoever watches the clients of this process: a simulation's display, say."""


@dataclass(frozen=True)
class ClientParty:
    """One client: the experiment as it sees it, and what it keeps on its own side."""

    prepared: PreparedExperiment
    state: ClientState
    ledger: Callable[[], Ledger] = no_ledger
    """Opens its ledger of spent privacy; called only where records are protected."""
    owner: Owner | None = None
    """What the data's owner says of the ledger; None in a simulation, where nobody owns data."""
    most_bytes: float = math.inf
    """That may come in, or leave, in one message."""
    identity: Identity | None = None
    """What signs this site's keys for secure aggregation; None in a simulation."""
    shows_teacher: bool = True
    """Whether its teacher is kept even where no later round reads it, for who does afterwards."""

    def member(self, call: wire.Call) -> SumMember:
        """Itself in the secure sum that a call is about.

        Raises:
            MessageError: the experiment has none.
        """
        if not self.prepared.setting.securely:
            raise MessageError("the server asks for a step of secure aggregation, which is off")
        return SumMember(self.prepared.setting, self.state, call.client, call.round, self.identity)


Find = Callable[[Context, wire.Call], ClientParty]
"""Finds the party that a call is for.

Raises:
    FedkdError: it will not take part.
"""


Limit = Callable[[], AbstractContextManager[None]]
"""What the whole of an answer is made within; it may end it by an exception."""


def client_app(find: Find, limit: Limit = nullcontext, *, simulated: bool = False) -> ClientApp:
    """The Flower app of a client.

    Args:
        find: finds the party that a call is for.
        limit: what an answer is made within.
        simulated: whether a failure is sent with its exception's own words, see `Failure.quoting`.
            They may hold private data, so only where all parties are one person's.
    """
    app = ClientApp()
    app.train(ACTION)(partial(_reply, _answer, find, limit, simulated))
    app.train(messages.KEYS)(partial(_reply, _make_keys, find, limit, simulated))
    app.train(messages.SHARES)(partial(_reply, _share, find, limit, simulated))
    app.train(messages.OPEN)(partial(_reply, _open, find, limit, simulated))
    return app


_Make = Callable[[wire.Call, ClientParty, Spending | None, Clock], wire.Call]
"""Makes a party's answer to a call."""


def _reply(
    make: _Make,
    find: Find,
    limit: Limit,
    simulated: bool,  # noqa: FBT001 - bound by position
    message: Message,
    context: Context,
) -> Message:
    clock, spending, private = Clock(_nobody), None, True
    try:
        call = wire.unpack(message.content)
        if isinstance(call, wire.Failure):
            raise MessageError("the server sent a failure in place of a call")
        clock = Clock(partial(WATCHER.get(_nobody), call.client))
        with limit():
            party = find(context, call)
            private = party.prepared.experiment.privacy.unit != "none"
            _check_size("the call", len(call.payload) + len(call.beside), party)
            if party.prepared.experiment.privacy.unit == "record":
                spending = Spending.of_records(party.prepared, party.ledger(), call, party.owner)
            answer = make(call, party, spending, clock)
        return Message(wire.pack(answer), reply_to=message)
    except Exception as error:
        refused = isinstance(error, PolicyError | BudgetError)
        log.warning("round %s: %s", message.metadata.group_id, error, exc_info=not refused)
        failure = wire.Failure.of(error, clock.current, _ledger_head(spending))
        failure = failure.quoting(error, private=private) if simulated else failure
        return Message(wire.pack_failure(failure), reply_to=message)


def _make_keys(
    call: wire.Call, party: ClientParty, spending: Spending | None, _: Clock
) -> wire.Call:
    """The answer to the first of secure aggregation's messages; it touches no data."""
    member = party.member(call)
    if spending is not None:
        # Whoever cannot pay says so while the others can still do without it.
        spending.require(call.round, group(RELEASED, _kept(party, call.round)))
    return _step(call, spending, steps.make_keys(member))


def _share(call: wire.Call, party: ClientParty, spending: Spending | None, _: Clock) -> wire.Call:
    """The answer to the second."""
    return _step(call, spending, steps.share(party.member(call), decode(call.payload)))


def _open(call: wire.Call, party: ClientParty, spending: Spending | None, _: Clock) -> wire.Call:
    """The answer to the last."""
    return _step(call, spending, steps.open_shares(party.member(call), decode(call.payload)))


def _step(call: wire.Call, spending: Spending | None, tensors: Tensors) -> wire.Call:
    ledger_head = None if spending is None else spending.ledger_head()
    return wire.Call(call.round, call.client, encode(tensors), ledger_head)


def _answer(
    call: wire.Call, party: ClientParty, spending: Spending | None, clock: Clock
) -> wire.Call:
    prepared, state = party.prepared, party.state
    # One thread a client, on every engine: how work is split among threads changes its last bits.
    torch.set_num_threads(1)
    received, masking = decode(call.payload), None
    if prepared.setting.securely:
        masking = Masking.of(party.member(call), call.payload, call.beside)
        received = messages.without(received)
    elif spending is not None and (sent := state.answer(round=call.round)) is not None:
        spending.send_again(sent)
        return wire.Call(call.round, call.client, sent, spending.ledger_head())
    kept = _kept(party, call.round)
    told, keep = received, dict[str, Tensor]()
    if (forms := prepared.forms) is not None:
        received, keep = forms.received(told, kept)
    sight = prepared.setting.clients_sight(call.client)
    ctx = ClientContext(
        setting=prepared.setting.of_client(call.client),
        round=call.round,
        client=call.client,
        _data=prepared.own(call.client, call.round).seen_by(sight),
        state=kept,
        clock=clock,
        earlier=prepared.earlier(call.client, call.round, sight),
        allowance=None if spending is None else spending.reserve(call.round, group(RELEASED, kept)),
    )
    upload = prepared.method.client(ctx, received)
    if masking is not None:
        upload = masking(upload)
    scored = prepared.scoring.of(call.client, call.round)
    test = prepared.scoring.records(call.round).seen_by(sight) if scored else None
    upload = upload.with_values(report.values(ctx, test))
    if (model := ctx.own_model) is not None and prepared.scoring.personal(call.round):
        own = prepared.data.held_out[call.client].seen_by(sight)
        upload = upload.with_values(personal.values(ctx, model, own))
    receipts = release(upload, None if ctx.allowance is None else ctx.allowance.paid)
    tensors: Tensors = {name: value.data for name, value in upload.values.items()}
    if forms is not None:  # after the gate: what was let out, in fewer bits
        tensors, answered = forms.written(tensors, kept, told, call.round)
        ctx.state.update(keep | answered)
    payload = encode(tensors)
    _check_size("the answer", len(payload), party)
    keeping = _to_keep(ctx, party)
    if spending is None or ctx.allowance is None:
        state.save(keeping, receipts, round=call.round)
        return wire.Call(call.round, call.client, payload)
    ctx.allowance.settle(payload)
    # A masked answer suits its own roster alone, and its noise must be in no other sum.
    again = payload if masking is None else None
    state.save(keeping, receipts, round=call.round, answer=again)
    ctx.allowance.send()
    return wire.Call(call.round, call.client, payload, spending.ledger_head())


def _kept(party: ClientParty, round: int) -> dict[str, Tensor]:
    """What the client kept, without what it released of an earlier stage, whose records are others.

    A count of these is another release then, and paid for anew: see `accounting.plan`.
    """
    kept, stages = party.state.load(before=round), party.prepared.setting.stages
    if stages is None:
        return kept
    stage = stages.at(round)
    if _STAGE in kept and int(kept[_STAGE]) != stage:
        kept = {name: each for name, each in kept.items() if not name.startswith(f"{RELEASED}/")}
    return kept | {_STAGE: torch.tensor(stage)}


def _to_keep(ctx: ClientContext, party: ClientParty) -> dict[str, Tensor]:
    """What a later round reads, and the teacher where somebody does when the run has ended."""
    if ctx.has_teacher:
        ctx.keep(_TEACHER, ctx.teacher.state_dict())
    more = not party.prepared.method.card.one_shot
    teacher = party.shows_teacher or (more and ctx.keeps_teacher)
    return {
        name: each
        for name, each in ctx.state.items()
        if (teacher if name.startswith(f"{_TEACHER}/") else more)
    }


def _check_size(what: str, size: int, party: ClientParty) -> None:
    if size > party.most_bytes:
        raise PolicyError(
            f"limits.bytes = {party.most_bytes:g}: {what} has {size} bytes",
            key="limits.bytes",
        )


def _ledger_head(spending: Spending | None) -> wire.LedgerHead | None:
    """Where the ledger stands after a failure; what is spent is spent."""
    try:
        return None if spending is None else spending.ledger_head()
    except FedkdError:  # the ledger itself is what failed
        return None


def _nobody(*_: object) -> None:
    """Watch nothing."""
