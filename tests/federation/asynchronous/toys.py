"""Asynchronous federations in a second: toy methods whose course is plain arithmetic, and how the
server's steps go by a clock that ticks."""

from dataclasses import dataclass, field

import torch

from fedkd.exchange.messages import Broadcast, Public, Upload, Value
from fedkd.federation import engines
from fedkd.federation.answers import Unwatched
from fedkd.methods.core.base import Card, Method
from fedkd.methods.fedavg import FedAvg
from fedkd.specs import TensorSpec


class Telling(Method):
    """Clients say for which round they were asked; the server notes what it was given."""

    card = Card(
        paper="", sends="", needs="", returns="", has_teachers=False, asynchronous="answers"
    )

    def expects(self, setting, client):
        return {"round": TensorSpec((), torch.int64)}

    def client(self, ctx, broadcast):
        return Upload({"round": Value(torch.tensor(ctx.round), Public())})

    def server(self, ctx, uploads):
        ctx.losses.update({str(client): float(each["round"]) for client, each in uploads.items()})
        return Broadcast()


def first(model):
    """A model's first number."""
    return float(next(model.parameters()).detach().flatten()[0])


class Pushing(FedAvg):
    """Each client adds its own number and one to all that it starts from."""

    def client(self, ctx, broadcast):
        start = self._start(ctx, broadcast)
        ctx.teacher.load_state_dict({n: each + ctx.client + 1 for n, each in start.items()})
        return ctx.model_and_count()

    def server(self, ctx, uploads):
        broadcast = super().server(ctx, uploads)
        ctx.losses["first"] = first(ctx.student)
        return broadcast


@dataclass
class Keeping:
    """A keeper in memory."""

    records: list = field(default_factory=list)
    checkpoints: list = field(default_factory=list)

    def resume(self):
        return self.checkpoints[-1] if self.checkpoints else None

    def keep(self, record, checkpoint, generated):
        self.records.append(record)
        self.checkpoints.append(checkpoint)


def simulated(prepared, keeper=None, **told):
    keeper = Keeping() if keeper is None else keeper
    student = engines.simulate(prepared, keeper, Unwatched(), states=None, **told)
    return keeper.records, student


@dataclass
class Ticked:
    """A step by the ticking clock."""

    time: int
    used: dict
    """By client, the round that it was asked for."""
    kept: dict
    late: dict
    """Those that were too late."""


def tick(seconds, *, buffer, staleness, rounds):
    """The steps of a federation, by asking every client every second what it does."""
    clients = range(len(seconds))
    newest, time, steps, said = 0, 0, [], {}
    has = dict.fromkeys(clients, 0)  # the broadcast that it had last
    left = dict(zip(clients, seconds, strict=True))  # seconds of work; None where it waits
    fresh, late = {}, {}
    while len(steps) < rounds:
        time += 1
        for client in clients:
            if left[client] is not None:
                left[client] -= 1
        for client in clients:
            if left[client] == 0:
                (late if newest - has[client] > staleness else fresh)[client] = has[client] + 1
                left[client] = None
                if has[client] < newest:
                    has[client], left[client] = newest, seconds[client]
        if len(fresh) >= buffer:
            newest += 1
            said |= fresh
            kept = {c: r for c, r in said.items() if c not in fresh and newest - r <= staleness}
            steps.append(Ticked(time, dict(sorted(fresh.items())), kept, late))
            fresh, late = {}, {}
            for client in clients:
                if left[client] is None:
                    has[client], left[client] = newest, seconds[client]
    return steps
