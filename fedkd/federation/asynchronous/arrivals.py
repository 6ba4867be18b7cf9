"""Where answers come from: out of a simulation, by its virtual clock, or from real sites."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from fedkd.config import Asynchronous
from fedkd.federation.answers import Answers
from fedkd.federation.asynchronous.in_flight import Awaited, InFlight
from fedkd.federation.asynchronous.log import Moment
from fedkd.federation.checking import checked
from fedkd.federation.client import ACTION
from fedkd.federation.cohort import (
    NO_DEADLINE,
    Connected,
    Question,
    arrived,
    ask,
    push,
    take_answer,
)


class Arrivals(Protocol):
    """Where answers come from."""

    def post(self, flight: InFlight, clients: Sequence[int]) -> None:
        """Send these clients what they are asked, as it stands in `flight`."""

    def next(self, awaited: Awaited, /) -> tuple[float, Answers]:
        """The answers that come next, of those at work, and when they come by the run's clock.

        Raises:
            StorageError: in a simulation, a client's state cannot be kept or read.
        """


Script = Callable[[Awaited], Sequence[Moment]]
"""Says who comes next in a simulation, moment after moment: as far as it is sure, whatever happens,
that they come before the step."""


@dataclass(frozen=True)
class VirtualClock:
    """Who comes next if each client takes the time that the experiment gives it."""

    how: Asynchronous
    deadline: float | None
    """Seconds after which a client is given up."""

    def __call__(self, awaited: Awaited) -> list[Moment]:
        """See `Script`."""
        ends: dict[float, dict[int, int]] = {}
        for client, asked in awaited.flight.working.items():
            end = asked.since + min(self._seconds(client), self.deadline or NO_DEADLINE)
            ends.setdefault(end, {})[client] = asked.round
        moments, coming = [], 0
        for end, rounds in sorted(ends.items()):
            moments.append(Moment(end, rounds, self._given_up(rounds)))
            coming += len(rounds)
            if coming >= awaited.answers:
                break
        return moments

    def _seconds(self, client: int) -> float:
        return self.how.seconds_of(client)

    def _given_up(self, clients: Mapping[int, int]) -> dict[int, str]:
        if self.deadline is None:
            return {}
        late = [client for client in clients if self._seconds(client) > self.deadline]
        return dict.fromkeys(late, f"no answer within {self.deadline:g} s")


@dataclass(frozen=True)
class Simulated:
    """Answers that are made when their time has come, so that what nobody waits for costs nothing.

    All that are known to come before the next step are made at once, on all threads.
    """

    clients: Connected
    script: Script
    _made: dict[int, Answers] = field(default_factory=dict)

    def post(self, flight: InFlight, clients: Sequence[int]) -> None:
        """See `Arrivals`; what is asked is answered when its time has come."""

    def next(self, awaited: Awaited, /) -> tuple[float, Answers]:
        """See `Arrivals`."""
        moments = self.script(awaited)
        self._make(awaited.flight, moments)
        came = Answers(list(moments[0].rounds), ledger_heads=self.clients.ledger_heads)
        for client in came.cohort:
            if client in self._made:
                came.add(self._made.pop(client))
            else:
                came.failures[client] = moments[0].failures[client]
        return moments[0].time, came

    def _make(self, flight: InFlight, moments: Sequence[Moment]) -> None:
        wanted: dict[int, list[int]] = {}
        for moment in moments:
            for client, asked in moment.rounds.items():
                known = client in self._made or client in moment.failures
                # A log may have one that comes twice, the second time for what it is asked then.
                if not known and flight.working[client].round == asked:
                    wanted.setdefault(asked, []).append(client)
        for asked, group in wanted.items():
            broadcast = flight.broadcasts[asked]
            answers = ask(self.clients, sorted(group), broadcast, asked, deadline=NO_DEADLINE)
            self._made.update(answers.by_client())


class Posted:
    """Answers of real sites: what is asked is sent at once, and comes back when it does.

    Args:
        clients: the sites.
        now: where the run's clock stands.
    """

    def __init__(self, clients: Connected, now: float) -> None:
        self._clients = clients
        self._question = Question(ACTION, partial(checked, clients.prepared))
        self._start = time.monotonic() - now
        self._waiting: dict[str, tuple[int, int, float]] = {}
        """By a call's id its client, its round and when it is given up."""
        self._came = self._nothing()

    def post(self, flight: InFlight, clients: Sequence[int]) -> None:
        """See `Arrivals`."""
        deadline = self._clients.deadline
        for round in sorted({flight.working[client].round for client in clients}):
            cohort = [client for client in clients if flight.working[client].round == round]
            broadcast = flight.broadcasts[round]
            sent = push(
                self._clients, cohort, self._came, broadcast, round, deadline, self._question
            )
            end = time.monotonic() + deadline
            self._waiting |= {id: (client, round, end) for id, client in sent.items()}

    def next(self, _: Awaited, /) -> tuple[float, Answers]:
        """See `Arrivals`."""
        while True:
            self._look()
            if cohort := sorted({*self._came.uploads, *self._came.failures}):
                came, self._came = self._came, self._nothing()
                came.cohort = cohort
                return time.monotonic() - self._start, came
            time.sleep(self._clients.connections.poll)

    def _look(self) -> None:
        """Take in what has come, and give up what is overdue."""
        clients, came = self._clients, self._came
        for id, reply in arrived(clients, self._waiting):
            client, round, _ = self._waiting.pop(id)
            take_answer(clients, client, round, reply, came, self._question)
            clients.observer.client_ends(client, came.failures.get(client))
        for id, (client, _, end) in list(self._waiting.items()):
            if time.monotonic() > end:
                del self._waiting[id]
                came.failures[client] = f"no answer within {clients.deadline:g} s"
                clients.observer.client_ends(client, came.failures[client])

    def _nothing(self) -> Answers:
        return Answers([], ledger_heads=self._clients.ledger_heads)
