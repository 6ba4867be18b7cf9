"""FedMD with clients that fail, each in its own way: inside the method, or on the wire."""

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict

from fedkd.exchange.codec import decode, encode
from fedkd.exchange.messages import Upload, Value
from fedkd.federation import cohort, inprocess, wire
from fedkd.methods.feddf import FedDF
from fedkd.methods.fedmd import FedMD, FedMDParams

SECRET = "Patient4711"
RELEASE = threading.Event()
"""Ends the wait of clients that hang."""


class Patient4711Error(RuntimeError):
    """Private data in an exception's name."""


class FaultyParams(FedMDParams):
    faults: tuple[str, ...] = ()
    """By client; an empty string for none."""
    faulty_rounds: tuple[int, ...] = (2,)

    def fault(self, client, round):
        known = client < len(self.faults) and round in self.faulty_rounds
        return self.faults[client] if known else ""


class Normed(torch.nn.Sequential):
    """A model that cannot be trained by one sample at a time."""

    def __init__(self, shape, classes):
        super().__init__(
            torch.nn.Linear(*shape, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, classes)
        )


def leap():
    """Have an hour pass for a grid in this process and the round that it is in."""
    for module in (cohort, inprocess):
        ahead = module.time.monotonic() - time.monotonic() + 3600.0
        module.time = SimpleNamespace(
            monotonic=lambda ahead=ahead: time.monotonic() + ahead, sleep=time.sleep
        )


class Leaping(FedMD):
    """FedMD whose client 0 `stays` in round 1, and whose deadline passes then, and not before.

    So it is no matter how long an honest answer takes on this machine.
    """

    def __init__(self, *args):
        super().__init__(*args)
        self.staying = threading.Event()

    def client(self, ctx, broadcast):
        if ctx.client == 0:
            self.staying.set()
            self.stay()
        return super().client(ctx, broadcast)

    def begin(self, ctx):
        take, let_in = cohort.take_answer, []

        def leaping(*args):
            take(*args)
            let_in.append(args)
            if len(let_in) == ctx.setting.clients - 1:
                self.staying.wait()
                leap()

        cohort.take_answer = leaping
        return super().begin(ctx)


class Busy(Leaping):
    """Its client 0 computes in torch far past any deadline."""

    def stay(self):
        matrix = torch.ones(400, 400)
        while True:
            matrix = matrix @ matrix / matrix.sum()


class Poison(FedDF):
    """FedDF whose client 0 sends finite weights that overflow in use."""

    def client(self, ctx, broadcast):
        upload = super().client(ctx, broadcast)
        if ctx.client != 0:
            return upload
        huge = {
            name: replace(value, data=torch.full_like(value.data, 1e30))
            for name, value in upload.values.items()
            if name.startswith("model/")
        }
        return upload.with_values(huge)


class Faulty(FedMD):
    Params = FaultyParams

    def client(self, ctx, broadcast):
        upload = super().client(ctx, broadcast)
        fault = self.params.fault(ctx.client, ctx.round)
        return INSIDE[fault](ctx, upload) if fault in INSIDE else upload


class Hanging(Leaping):
    """Its client 0 never answers."""

    def stay(self):
        threading.Event().wait()


def _raise(ctx, upload):
    with ctx.clock.phase("train"):
        raise Patient4711Error(SECRET, {SECRET: SECRET})


def _die(ctx, upload):
    """Where a client has a process of its own, as when memory runs out."""
    with ctx.clock.phase("train"):
        os.kill(os.getpid(), signal.SIGKILL)


def _hang(ctx, upload):
    RELEASE.wait(600)
    return upload


def _logits(change):
    def fault(ctx, upload):
        value = upload.values["logits"]
        return Upload({"logits": replace(value, data=change(value.data))})

    return fault


def _extra(ctx, upload):
    return upload.with_values({"surplus": Value(torch.zeros(1), ctx.from_teacher)})


INSIDE = {
    "raises": _raise,
    "exits": lambda ctx, upload: sys.exit(SECRET),
    "is killed": _die,
    "hangs": _hang,
    "sends NaN": _logits(lambda logits: logits * float("nan")),
    "sends a wrong shape": _logits(lambda logits: logits[1:]),
    "sends a wrong dtype": _logits(lambda logits: logits.view(torch.uint8)[:, :3]),
    "sends a dtype without code": _logits(lambda logits: logits.to(torch.complex64)),
    "sends far too much": _logits(lambda logits: torch.zeros(200_000)),
    "sends nothing": lambda ctx, upload: Upload(),
    "sends an extra field": _extra,
    "sends a bare tensor": lambda ctx, upload: Upload({"logits": torch.zeros(1)}),
}


class FaultyApp:
    """A client app whose answers are changed on their way, as the method's parameters say."""

    def __init__(self, app, params):
        self.app, self.params = app, params

    def __call__(self, message, context):
        call = wire.unpack(message.content)
        fault = self.params.fault(call.client, call.round)
        reply = self.app(message, context)
        return ON_THE_WIRE[fault](message, reply) if fault in ON_THE_WIRE else reply


def _content(change):
    def fault(message, reply):
        answer = wire.unpack(reply.content)
        return Message(change(answer), reply_to=message)

    return fault


def _payload(change):
    return _content(lambda answer: wire.pack(replace(answer, payload=change(answer.payload))))


def _field(name, change):
    return _payload(
        lambda payload: encode(
            {k: change(t) if k == name else t for k, t in decode(payload).items()}
        )
    )


def _knowledge(stype):
    return ArrayRecord({"payload": Array("uint8", (3,), stype, b"abc")})


ON_THE_WIRE = {
    "answers with an error": lambda message, reply: Message(Error(2, SECRET), reply_to=message),
    "answers with garbage": _payload(lambda payload: SECRET.encode()),
    "answers with half": _payload(lambda payload: payload[: len(payload) // 2]),
    "answers with no call": _content(
        lambda answer: RecordDict({"knowledge": _knowledge("fedkd.safetensors")})
    ),
    "answers with another stype": _content(
        lambda answer: RecordDict(
            {
                "call": ConfigRecord({"round": answer.round, "client": answer.client}),
                "knowledge": _knowledge("numpy.ndarray"),
            }
        )
    ),
    "answers with words for numbers": _content(
        lambda answer: RecordDict(
            {
                "call": ConfigRecord({"round": SECRET, "client": answer.client}),
                "knowledge": _knowledge("fedkd.safetensors"),
            }
        )
    ),
    "answers to another round": _content(
        lambda answer: wire.pack(replace(answer, round=answer.round - 1))
    ),
    "answers for another client": _content(
        lambda answer: wire.pack(replace(answer, client=answer.client - 1))
    ),
    "fails in words of its own": _content(
        lambda answer: wire.pack_failure(wire.Failure(SECRET, SECRET))
    ),
    "claims more than all right": _field("report/correct", lambda correct: correct + 1000),
    "claims fewer than none": _field("report/correct", lambda correct: correct - 1000),
    "claims an age": _field("report/seconds", lambda seconds: seconds + 1e308),
    "claims a negative time": _field("report/seconds", lambda seconds: -seconds - 1),
}
