"""The server's side of worker processes: in place of a client app, it has one of them answer."""

import logging
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from flwr.app import Context, Message, RecordDict

from fedkd.errors import FederationError
from fedkd.federation import wire
from fedkd.federation.client import WATCHER
from fedkd.federation.inprocess import EXPIRES
from fedkd.federation.workers import serving
from fedkd.federation.workers.channel import Channel
from fedkd.federation.workers.fork_server import ForkServer

_PATIENCE = 3600.0
"""Seconds of one wait; the system's call takes no more than some weeks."""
PassOn = Callable[[str, Sequence[Any]], None]


@dataclass
class _Worker:
    pid: int
    channel: Channel
    phase: str = ""
    """Which its client is in."""

    def ask(
        self, message: Message, context: Context, pass_on: PassOn
    ) -> tuple[Message, RecordDict]:
        """Its answer to a message, and the state of the context then.

        Raises:
            EOFError: it has ended.
            TimeoutError: the message has expired.
        """
        self.phase = ""
        self.channel.send(message, context)
        while (left := EXPIRES.get() - time.monotonic()) > 0:
            if not self.channel.waits(min(left, _PATIENCE)):
                continue
            kind, *said = self.channel.receive()
            if kind == serving.REPLY:
                reply, state = said
                return reply, state
            if kind == serving.STEP:
                _, phase, done, total = said
                self.phase = phase if done < total else ""
            pass_on(kind, said)
        raise TimeoutError


class WorkerProcesses:
    """A client app whose calls are answered in worker processes: for the threads of a grid.

    Each thread that calls has a worker for as long. A worker that ends, by whatever fault of the
    client that it answers for, is that client's failure; so is one that is late, which is killed.
    The next call has another.

    Use it as a context manager; leaving it ends all workers, whatever they are at.

    Args:
        app: what answers; it, and all that it holds, is as it was when this was made.
    """

    def __init__(self, app: Callable[[Message, Context], Message]) -> None:
        self._server = ForkServer(partial(serving.serve, app))
        self._idle: list[_Worker] = []
        self._warned: dict[Any, Any] = {}

    def __enter__(self) -> "WorkerProcesses":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def __call__(self, message: Message, context: Context) -> Message:
        """Have a worker answer; the context's state is then as it left it.

        Raises:
            TimeoutError: it has not answered in time, and was killed.
        """
        try:
            worker = self._take()
        except FederationError as error:
            return _failed(message, error)
        try:
            reply, context.state = worker.ask(message, context, self._pass_on)
        except EOFError:
            status = self._server.end(worker.pid)
            return _failed(message, _ended(status), worker.phase)
        except BaseException:  # late, or whoever was told of its steps failed
            self._server.end(worker.pid)
            raise
        self._idle.append(worker)
        return reply

    def _take(self) -> _Worker:
        try:
            return self._idle.pop()
        except IndexError:
            return _Worker(*self._server.start())

    def _pass_on(self, kind: str, said: Sequence[Any]) -> None:
        """Say here what was said there."""
        if kind == serving.STEP and (watch := WATCHER.get(None)) is not None:
            watch(*said)
        elif kind == serving.RECORD:
            (record,) = said
            logging.getLogger(record.name).handle(record)
        elif kind == serving.WARNING:
            text, category, file, line = said
            warnings.warn_explicit(text, category, file, line, registry=self._warned)


def _failed(message: Message, error: Exception, phase: str = "") -> Message:
    failure = wire.Failure.of(error, phase).quoting(error, private=False)
    return Message(wire.pack_failure(failure), reply_to=message)


def _ended(status: int) -> ChildProcessError:
    """Why there is no answer, by a worker's exit status."""
    how = f"ended with status {status}" if status >= 0 else f"was ended by {_signal(-status)}"
    hint = ", as the kernel does when memory runs out" if status == -signal.SIGKILL else ""
    return ChildProcessError(f"its worker process {how}{hint}")


def _signal(number: int) -> str:
    known = {each.value: each.name for each in signal.Signals}
    return known.get(number, f"signal {number}")
