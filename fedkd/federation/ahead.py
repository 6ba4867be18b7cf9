"""The next round's calls, sent as soon as a method knows what clients need, before it distils.

Clients then train while the server distils. Their answers wait until the round before is kept.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Event
from types import TracebackType
from typing import Self

from fedkd.errors import FederationError
from fedkd.exchange.messages import Broadcast
from fedkd.federation.answers import Answers, Signals
from fedkd.federation.cohort import Connected, ask


class Ahead:
    """Asks a round ahead, on a thread of its own. Use it as a context manager.

    Args:
        clients: who may be asked.
    """

    def __init__(self, clients: Connected) -> None:
        self._clients = clients
        # What clients of this process inherit is what holds now, not within a server's step.
        self._variables = copy_context()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fedkd-ahead")
        self._stop = Event()
        self._asked: tuple[int, Broadcast, Future[Answers]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.shutdown()

    def ask(self, round: int, broadcast: Broadcast) -> None:
        """Send a round's calls; when it returns, the broadcast is encoded."""
        clients, signals = self._clients, Signals(stop=self._stop)
        cohort = clients.prepared.setting.cohort(round)
        clients.observer.round_begins(round, cohort)
        answers = self._thread.submit(
            self._variables.copy().run, ask, clients, cohort, broadcast, round, signals=signals
        )
        answers.add_done_callback(lambda _: signals.sent.set())  # by whatever it was ended
        signals.sent.wait()
        self._asked = round, broadcast, answers

    def answers(self, round: int, broadcast: Broadcast) -> Answers | None:
        """What came of the calls of a round; None if they were not sent yet.

        Raises:
            FederationError: its clients were sent something else than the `broadcast`.
            StorageError: as `cohort.ask`.
        """
        if self._asked is None or self._asked[0] != round:
            return None
        _, sent, answers = self._asked
        if sent is not broadcast:
            raise FederationError(
                "the method's server part gave ctx.announce another broadcast than it returned: "
                "expected the same, since clients are at work on the first"
            )
        return answers.result()
