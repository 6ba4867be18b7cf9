"""The client app: the teacher learns, the gate opens, an answer leaves. One message a round."""

import logging
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedkd.errors import MessageError
from fedkd.exchange.codec import decode, encode
from fedkd.exchange.gate import release
from fedkd.federation import report, wire
from fedkd.federation.state import ClientState
from fedkd.federation.world import World
from fedkd.methods.base import ClientContext
from fedkd.methods.setting import Clock

log = logging.getLogger(__name__)

ACTION = "learn"

Watcher = Callable[[int, str, int, int], None]
"""Called with a client, its phase, steps done and steps in all."""

WATCHER: ContextVar[Watcher] = ContextVar("watcher")
"""Whoever watches the clients of this process: a simulation's display, say."""


def client_app(
    world: Callable[[Context], World], state: Callable[[Context, int], ClientState]
) -> ClientApp:
    """The Flower app of a client.

    Args:
        world: finds the experiment that a message belongs to.
        state: finds the memory of a client, by the client's index.
    """
    app = ClientApp()
    app.train(ACTION)(partial(_learn, world, state))
    return app


def _learn(
    world: Callable[[Context], World],
    state: Callable[[Context, int], ClientState],
    message: Message,
    context: Context,
) -> Message:
    clock = Clock(_nobody)
    try:
        call = wire.unpack(message.content)
        if isinstance(call, wire.Failure):
            raise MessageError("the server sent a failure in place of a call")
        clock = Clock(partial(WATCHER.get(_nobody), call.client))
        answer = _answer(call, world(context), state(context, call.client), clock)
        return Message(wire.pack(answer), reply_to=message)
    except Exception as error:
        log.warning("client failed in round %s", message.metadata.group_id, exc_info=True)
        failure = wire.Failure.of(error, clock.current)
        return Message(wire.pack_failure(failure), reply_to=message)


def _answer(call: wire.Call, world: World, state: ClientState, clock: Clock) -> wire.Call:
    # One thread a client, on every engine: how work is split among threads changes its last bits.
    torch.set_num_threads(1)
    ctx = ClientContext(
        setting=world.setting,
        round=call.round,
        client=call.client,
        data=world.data.clients[call.client],
        state=state.load(before=call.round),
        clock=clock,
    )
    upload = world.method.client(ctx, decode(call.payload))
    upload = upload.with_values(report.values(ctx, world.data.test))
    receipts = release(upload, world.experiment.privacy)
    payload = encode({name: value.data for name, value in upload.values.items()})
    if ctx.has_teacher:
        ctx.keep("teacher", ctx.teacher.state_dict())
    state.save(ctx.state, receipts, round=call.round)
    return wire.Call(call.round, call.client, payload)


def _nobody(*_: object) -> None:
    """Watch nothing."""
