"""What is looked at in a client's answer before it is let in: its form, its scores, its model.

Looking depends on the answer alone, so a simulation does it on the thread that made the answer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from flwr.app import Context, Message
from torch import Tensor

from fedkd.errors import MessageError, StorageError
from fedkd.exchange.codec import decode
from fedkd.exchange.messages import Tensors
from fedkd.federation import compat, personal, report, wire
from fedkd.federation.prepare import PreparedExperiment
from fedkd.rows import first

_PROBES = 32

Take = Callable[[int, int, bytes], Tensors]
"""Lets an answer in, looked at: of a round, a client, and its bytes.

Raises:
    MessageError: it is none.
"""
App = Callable[[Message, Context], Message]


def checked(
    prepared: PreparedExperiment,
    round: int,
    client: int,
    payload: bytes,
    *,
    state: Tensors | None = None,
) -> dict[str, Tensor]:
    """An answer to a round that may be let in; otherwise a MessageError says why not.

    The server's `state` has what a client's answers may be differences from.
    """
    upload = decode(payload, prepared.on_the_wire(client, round))
    if prepared.forms is not None:
        upload = prepared.forms.let_in(upload, client, state or {})
    report.check(upload, prepared.setting.task.scores, prepared.scoring.totals(round))
    personal.check(upload, prepared.setting.task.numbers)
    if not prepared.setting.securely:  # under masks nothing can be tried
        _probe(prepared, client, upload)
    return upload


def _probe(prepared: PreparedExperiment, client: int, upload: Tensors) -> None:
    """Refuse a model that overflows.

    Raises:
        MessageError: its answers are not finite.
    """
    answers = prepared.method.probe(
        prepared.setting, client, upload, first(prepared.data.test.x, _PROBES)
    )
    if answers is not None and not bool(torch.isfinite(answers).all()):
        raise MessageError("field 'model': its answers are NaN or infinity")


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a reply to a call comes to."""

    upload: Tensors | None = None
    """None where there is none that may be let in; then `failure` says why."""
    failure: str = ""
    refused: bool = False
    """Whether a privacy budget or its ledger did not allow it."""
    storage: str = ""
    """What this machine's own disk refused."""
    ledger_head: wire.LedgerHead | None = None
    """Where the client says that its ledger stands, even where it failed."""
    bytes: int = 0


def look(
    prepared: PreparedExperiment,
    call: tuple[int, int],
    reply: Message | None,
    take: Take,
    *,
    stranger: bool,
) -> Inspected:
    """What a reply comes to, by itself: what the server knows of the client's ledger comes after.

    Args:
        prepared: the experiment.
        call: the round and the client that were asked.
        reply: what came; None for what is no message at all.
        take: lets an answer in.
        stranger: whether a client's own words are left out.
    """
    if reply is None:
        return Inspected(failure="answer is not a fedkd message")
    if reply.has_error():
        code = reply.error.code
        return Inspected(failure=compat.ERRORS.get(code, f"Flower error {code}"))
    size, head = wire.payload_bytes(reply.content), None
    try:
        answer = wire.unpack(reply.content)
        head = answer.ledger_head
        if isinstance(answer, wire.Failure):
            ours = answer.kind == StorageError.__name__ and not stranger
            return Inspected(
                failure=str(answer) if stranger else answer.quoted,
                refused=answer.refused,
                storage=answer.words if ours else "",
                ledger_head=head,
                bytes=size,
            )
        if (answer.round, answer.client) != call:
            return Inspected(failure="answer to another call", ledger_head=head, bytes=size)
        if head is None and prepared.experiment.privacy.unit == "record":
            raise MessageError("answer does not say where its ledger stands")
        return Inspected(
            take(answer.round, answer.client, answer.payload), ledger_head=head, bytes=size
        )
    except MessageError as error:
        return Inspected(failure=str(error), ledger_head=head, bytes=size)


class LookedAt(Message):
    """A reply beside what it comes to."""

    def __init__(self, reply: Message, found: Inspected) -> None:
        vars(self).update(vars(reply))
        self.found = found


def looking(app: App, prepared: PreparedExperiment, take: Take, message_type: str) -> App:
    """A client app whose replies to messages of a type are looked at where they are made.

    For clients of this process: what comes over a wire is a plain `Message`, whatever it says.
    """

    def answer(message: Message, context: Context) -> Message:
        reply = app(message, context)
        if message.metadata.message_type != message_type:
            return reply
        call = wire.unpack(message.content)
        if isinstance(call, wire.Failure):
            return reply
        try:
            found = look(prepared, (call.round, call.client), reply, take, stranger=False)
        except Exception:  # noqa: BLE001 - the server meets it again, and ends the run
            return reply
        return LookedAt(reply, found)

    return answer
