"""A Flower grid that calls the client app in this process, on a pool of threads.

Ten to three thousand times less overhead a round than a grid of other processes, and the same
messages, apps and mods. A client that hangs cannot be stopped: when its message has expired its
thread is abandoned and another takes its place.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from contextvars import Context as Variables
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import TracebackType

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from fedkd.federation import compat

WORKER_NAME = "fedkd-client"
EXPIRES: ContextVar[float] = ContextVar("expires")
"""When the message that a client app was called with expires, by the monotonic clock."""
_LAST_SECONDS = 10.0
"""That those at work have to end after an error; whoever ends later finds the store closed."""
_RUN = 1
_PATIENCE = 0.05
"""Seconds that a pull waits for a first answer, so that callers may poll without spinning."""


@dataclass(eq=False)
class _Worker:
    """A thread and what it is at."""

    thread: threading.Thread | None = None
    expires: float = float("inf")
    abandoned: bool = False


@dataclass(eq=False, frozen=True)
class _Job:
    message: Message
    variables: Variables = field(default_factory=copy_context)
    expires: float = field(init=False)
    """By the monotonic clock: the message's own time is the wall's, which may be set."""

    def __post_init__(self) -> None:
        expires = time.monotonic() + self.message.metadata.ttl
        object.__setattr__(self, "expires", expires)


class InProcessGrid(Grid):
    """Nodes 1 to `nodes` (`SERVER_NODE` left out), whose apps run here.

    Use it as a context manager; leaving it ends its threads. By an error it is left once those that
    are at work have ended too, or expired, or ten seconds later: whoever hangs, perhaps without a
    deadline, must not keep an error from being seen.
    """

    def __init__(
        self, app: Callable[[Message, Context], Message], *, nodes: int, threads: int
    ) -> None:
        self._app = app
        self._contexts = {
            compat.SERVER_NODE + 1 + i: compat.new_context(
                _RUN, compat.SERVER_NODE + 1 + i, {"partition-id": i, "num-partitions": nodes}
            )
            for i in range(nodes)
        }
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._replies: dict[str, Message] = {}
        self._arrived = threading.Condition()
        self._busy: set[int] = set()
        self._numbers = itertools.count(1)
        self._workers = [self._start_worker() for _ in range(min(threads, nodes))]
        compat.identify_server(_RUN)

    def __enter__(self) -> "InProcessGrid":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(Empty):  # nobody waits for what has not begun
            while True:
                self._jobs.get_nowait()
        for _worker in self._workers:
            self._jobs.put(None)
        fails = kind is not None and issubclass(kind, Exception)
        end = time.monotonic() + (_LAST_SECONDS if fails else 1)
        for worker in self._workers:
            at_leisure = worker.expires == float("inf")
            if worker.thread is not None and (at_leisure or fails):
                worker.thread.join(timeout=max(0.0, min(end, worker.expires) - time.monotonic()))

    def set_run(self, run: compat.Run) -> None:
        """Flower's interface; there is one run here."""

    @property
    def run(self) -> compat.Run:
        """The run that this grid belongs to."""
        return compat.Run.create_empty(_RUN)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Flower's older way to make a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes; they are always there."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue messages for their nodes."""
        pushed = []
        for message in messages:
            compat.number(message, next(self._numbers))
            pushed.append(message.metadata.message_id)
            self._jobs.put(_Job(message))
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that have arrived; waits a moment if there is none yet."""
        self._replace_hanging_workers()
        # What is here is little, what is waited for is as much as there are clients.
        wanted = message_ids if isinstance(message_ids, Mapping | Set) else set(message_ids)
        with self._arrived:
            self._arrived.wait_for(lambda: any(i in wanted for i in self._replies), _PATIENCE)
            return [self._replies.pop(i) for i in list(self._replies) if i in wanted]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull until all have answered or `timeout` seconds have passed."""
        waiting = set(self.push_messages(messages))
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        replies: list[Message] = []
        while waiting and time.monotonic() < end:
            arrived = list(self.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            replies += arrived
        return replies

    def _start_worker(self) -> _Worker:
        worker = _Worker()
        # A daemon, since a client that hangs must not keep the process alive.
        worker.thread = threading.Thread(
            target=self._work, args=(worker,), name=WORKER_NAME, daemon=True
        )
        worker.thread.start()
        return worker

    def _replace_hanging_workers(self) -> None:
        now = time.monotonic()
        for index, worker in enumerate(self._workers):
            if worker.expires < now:
                worker.abandoned = True
                self._workers[index] = self._start_worker()

    def _work(self, worker: _Worker) -> None:
        while not worker.abandoned and (job := self._jobs.get()) is not None:
            if job.expires < time.monotonic():
                continue
            worker.expires = job.expires
            reply = job.variables.run(self._call, job)
            worker.expires = float("inf")
            if time.monotonic() <= job.expires:  # nobody waits for a late one
                with self._arrived:
                    self._replies[job.message.metadata.message_id] = reply
                    self._arrived.notify_all()

    def _call(self, job: _Job) -> Message:
        EXPIRES.set(job.expires)
        message, node = job.message, job.message.metadata.dst_node_id
        with self._arrived:
            if node in self._busy:
                return Message(Error(compat.BUSY, "still busy"), reply_to=message)
            self._busy.add(node)
        try:
            reply = self._app(message, self._contexts[node])
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a client must not end its worker
            reply = crashed(message, error)
        finally:
            with self._arrived:
                self._busy.discard(node)
        return reply


def crashed(message: Message, error: BaseException) -> Message:
    """The reply of an app that ended by an exception, whose words are nobody's business."""
    return Message(Error(compat.CRASHED, type(error).__name__), reply_to=message)
