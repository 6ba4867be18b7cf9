"""FedMD whose clients fail as the experiment says, or wait until a test lets them go on."""

import os
import time
from pathlib import Path

import faulty
import torch
from pydantic import Field

from fedkd.exchange.messages import Value
from fedkd.federation import wire
from fedkd.methods.fedmd import FedMD, FedMDParams

HOLD = "FEDKD_TEST_HOLD"
"""Environment: a folder; a client that holds waits while its file is there."""


class StagedParams(FedMDParams):
    faults: dict[str, str] = Field(default_factory=dict)
    """By "round-client"."""

    def fault(self, client, round):
        return self.faults.get(f"{round}-{client}", "")


class Staged(FedMD):
    Params = StagedParams

    def client(self, ctx, broadcast):
        upload = super().client(ctx, broadcast)
        fault = self.params.fault(ctx.client, ctx.round)
        return INSIDE[fault](ctx, upload) if fault in INSIDE else upload


def _hold(ctx, upload):
    """Say that the round's work is done, and wait."""
    folder = Path(os.environ[HOLD])
    name = f"{ctx.round}-{ctx.client}"
    (folder / f"{name}.reached").touch()
    while (folder / name).exists():
        time.sleep(0.05)
    return upload


def _flood(ctx, upload):
    return upload.with_values({"surplus": Value(torch.zeros(15_000_000), ctx.from_teacher)})


INSIDE = {**faulty.INSIDE, "holds": _hold, "floods": _flood}


class StagedApp:
    """A client app whose answers are changed on their way, as the method's parameters say."""

    def __init__(self, app, faults):
        self.app, self.params = app, StagedParams(faults=faults)

    def __call__(self, message, context):
        call = wire.unpack(message.content)
        fault = self.params.fault(call.client, call.round)
        reply = self.app(message, context)
        return faulty.ON_THE_WIRE.get(fault, lambda _, reply: reply)(message, reply)
