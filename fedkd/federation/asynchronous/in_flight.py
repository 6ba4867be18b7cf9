"""What goes on beside the server's steps: who is at work on what, and what was said before."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from fedkd.exchange.messages import Broadcast, Tensors


@dataclass(frozen=True, slots=True)
class AtWork:
    """What a client is at work on."""

    round: int
    """The step that its answer is for, if it comes in time: the first after its broadcast."""
    since: float
    """When it was asked, in seconds of the run's clock."""


@dataclass(frozen=True, slots=True)
class KeptUpload:
    """What a client said last, and in answer to what."""

    round: int
    upload: Tensors


@dataclass(frozen=True)
class InFlight:
    """All of it between two steps; with the rest of a checkpoint a run goes on from it."""

    now: float = 0.0
    """Seconds of the run's clock: virtual ones in a simulation."""
    working: Mapping[int, AtWork] = field(default_factory=dict)
    broadcasts: Mapping[int, Broadcast] = field(default_factory=dict)
    """What those at work were sent, by the round that they were asked for."""
    kept: Mapping[int, KeptUpload] = field(default_factory=dict)
    """The last answers of clients, where a method goes on using them."""

    def asking(self, clients: Iterable[int], round: int, broadcast: Broadcast) -> Self:
        """The same with some more clients at work, for `round`, as of now."""
        new = dict.fromkeys(clients, AtWork(round, self.now))
        working = dict(sorted({**self.working, **new}.items()))
        sent = {**self.broadcasts, round: broadcast}
        rounds = sorted({asked.round for asked in working.values()})
        return replace(self, working=working, broadcasts={each: sent[each] for each in rounds})

    def without(self, clients: Iterable[int], now: float) -> Self:
        """The same at a later time, when some clients are at work no more."""
        gone = set(clients)
        working = {c: asked for c, asked in self.working.items() if c not in gone}
        return replace(self, now=now, working=working)


def snapshot(broadcast: Broadcast) -> Broadcast:
    """A broadcast with tensors of its own: a method's may be those of the model that it trains."""

    def own(tensors: Tensors) -> Tensors:
        return {name: tensor.clone() for name, tensor in tensors.items()}

    return Broadcast(
        own(broadcast.common),
        {model: own(part) for model, part in broadcast.by_model.items()},
        {client: own(part) for client, part in broadcast.by_client.items()},
    )


@dataclass(frozen=True, slots=True)
class Awaited:
    """What the server waits for."""

    round: int
    """The step that it is to make."""
    answers: int
    """How many more it takes, at least."""
    flight: InFlight
    """Who is at work on what."""
