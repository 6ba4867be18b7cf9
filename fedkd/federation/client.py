"""The client app: the teacher learns, the gate opens, an answer leaves. One message a round.

Under a unit that protects records the ledger comes first: the whole plan, then the round's worst
case, are written down before any data is touched, and what leaves is written down before it does.
"""

import logging
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedkd.errors import FedkdError, MessageError
from fedkd.exchange.codec import decode, encode
from fedkd.exchange.gate import release
from fedkd.exchange.messages import group
from fedkd.federation import report, wire
from fedkd.federation.spending import Spending, no_ledger
from fedkd.federation.state import ClientState
from fedkd.federation.world import World
from fedkd.methods.base import ClientContext
from fedkd.methods.context import RELEASED
from fedkd.methods.setting import Clock
from fedkd.privacy.ledger import Ledger

log = logging.getLogger(__name__)

ACTION = "learn"

Watcher = Callable[[int, str, int, int], None]
"""Called with a client, its phase, steps done and steps in all."""

WATCHER: ContextVar[Watcher] = ContextVar("watcher")
"""Whoever watches the clients of this process: a simulation's display, say."""


@dataclass(frozen=True)
class Memory:
    """What one client keeps on its own side."""

    state: ClientState
    ledger: Callable[[], Ledger] = no_ledger
    """Opens its ledger of spent privacy; called only where records are protected."""


def client_app(
    world: Callable[[Context], World], memory: Callable[[Context, int], Memory]
) -> ClientApp:
    """The Flower app of a client.

    Args:
        world: finds the experiment that a message belongs to.
        memory: finds what a client keeps, by the client's index.
    """
    app = ClientApp()
    app.train(ACTION)(partial(_learn, world, memory))
    return app


def _learn(
    world: Callable[[Context], World],
    memory: Callable[[Context, int], Memory],
    message: Message,
    context: Context,
) -> Message:
    clock, spending = Clock(_nobody), None
    try:
        call = wire.unpack(message.content)
        if isinstance(call, wire.Failure):
            raise MessageError("the server sent a failure in place of a call")
        clock = Clock(partial(WATCHER.get(_nobody), call.client))
        found, kept = world(context), memory(context, call.client)
        if found.experiment.privacy.unit == "record":
            spending = Spending.of_records(found, kept.ledger(), call)
        answer = _answer(call, found, kept.state, spending, clock)
        return Message(wire.pack(answer), reply_to=message)
    except Exception as error:
        log.warning("client failed in round %s", message.metadata.group_id, exc_info=True)
        failure = wire.Failure.of(error, clock.current, _standing(spending))
        return Message(wire.pack_failure(failure), reply_to=message)


def _answer(
    call: wire.Call, world: World, state: ClientState, spending: Spending | None, clock: Clock
) -> wire.Call:
    # One thread a client, on every engine: how work is split among threads changes its last bits.
    torch.set_num_threads(1)
    if spending is not None and (sent := state.answer(round=call.round)) is not None:
        spending.send_again(sent)
        return wire.Call(call.round, call.client, sent, spending.standing())
    kept = state.load(before=call.round)
    ctx = ClientContext(
        setting=world.setting,
        round=call.round,
        client=call.client,
        _data=world.data.clients[call.client],
        state=kept,
        clock=clock,
        allowance=None if spending is None else spending.reserve(call.round, group(RELEASED, kept)),
    )
    upload = world.method.client(ctx, decode(call.payload))
    upload = upload.with_values(report.values(ctx, world.data.test))
    receipts = release(upload, None if ctx.allowance is None else ctx.allowance.paid)
    payload = encode({name: value.data for name, value in upload.values.items()})
    if ctx.has_teacher:
        ctx.keep("teacher", ctx.teacher.state_dict())
    if spending is None or ctx.allowance is None:
        state.save(ctx.state, receipts, round=call.round)
        return wire.Call(call.round, call.client, payload)
    ctx.allowance.settle(payload)
    state.save(ctx.state, receipts, round=call.round, answer=payload)
    ctx.allowance.send()
    return wire.Call(call.round, call.client, payload, spending.standing())


def _standing(spending: Spending | None) -> wire.Standing | None:
    """Where the ledger stands after a failure; what is spent is spent."""
    try:
        return None if spending is None else spending.standing()
    except FedkdError:  # the ledger itself is what failed
        return None


def _nobody(*_: object) -> None:
    """Watch nothing."""
