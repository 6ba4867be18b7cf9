"""Where workers come from: a process that is forked once, and forks a worker whenever one is due.

Workers share the prepared data with it, page by page, and start in milliseconds. Were they forked
from the server itself, one that takes a dead one's place would be a copy of a process amid a round,
whose other threads hold locks and whose torch has computed; this one does nothing but fork.
"""

import ctypes
import gc
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress

from fedkd.errors import FederationError
from fedkd.federation.workers.channel import Channel

_SET_PARENT_DEATH_SIGNAL = 1  # of Linux's prctl
_FORK, _END = b"fork", b"end "
_MOST = 256
"""Bytes of a message, which are an order and a number, or a reason."""

Serve = Callable[[Channel], None]
"""What a worker does with its end of a channel, until the other one is gone."""


class ForkServer:
    """A process that forks workers, for this process alone; Linux only.

    It and all its workers are gone once the thread that made it is, in whatever way that ended.

    Args:
        serve: what a worker does.
    """

    def __init__(self, serve: Serve) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._one_at_a_time = threading.Lock()
        parent = os.getpid()
        with warnings.catch_warnings():  # Python's word on threads: the child touches no lock
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            self._line.close()
            _never_return(lambda: _fork_on_demand(theirs, serve), parent)
        theirs.close()

    def start(self) -> tuple[int, Channel]:
        """A new worker: its process id, and this end of its channel.

        Raises:
            FederationError: there is no room for another process, or this server is gone.
        """
        channel, theirs, memory = Channel.pair()
        try:
            pid, why = self._order(_FORK, (theirs.fileno(), memory))
        finally:
            theirs.close()
            os.close(memory)
        if not pid:
            channel.close()
            raise FederationError(
                f"no worker process can be started: {why}; lower engine.threads, or leave out "
                "engine.kind"
            )
        return pid, channel

    def end(self, worker: int) -> int:
        """Kill a worker, if it has not ended; its exit status, or less than 0 for a signal.

        Raises:
            FederationError: this server is gone.
        """
        return os.waitstatus_to_exitcode(self._order(_END + str(worker).encode())[0])

    def close(self) -> None:
        """End it and all its workers, whatever they are at."""
        with self._one_at_a_time:
            self._line.close()
        with suppress(ChildProcessError):  # somebody else has asked how it ended
            os.waitpid(self._pid, 0)

    def _order(self, order: bytes, files: Sequence[int] = ()) -> tuple[int, str]:
        with self._one_at_a_time:
            try:
                socket.send_fds(self._line, [order], files)
                answer = self._line.recv(_MOST)
            except OSError:
                answer = b""
        if not answer:
            raise FederationError(
                "the process that forks workers was ended by somebody else, out of memory perhaps: "
                "go on with --resume"
            )
        number, _, why = answer.decode().partition(" ")
        return int(number), why


def _fork_on_demand(line: socket.socket, serve: Serve) -> None:
    gc.freeze()  # lest a collection touch, and so copy, every page of what is shared
    workers: set[int] = set()
    while True:
        order, files, *_ = socket.recv_fds(line, _MOST, 2)
        if not order:
            break
        if order == _FORK:
            answer = _fork(line, serve, files)
            workers |= {int(answer)} - {0} if answer.isdigit() else set()
        else:
            worker = int(order.removeprefix(_END))
            workers.discard(worker)
            answer = str(_kill(worker))
        line.send(answer.encode())
    for worker in workers:
        _kill(worker)


def _fork(line: socket.socket, serve: Serve, files: Sequence[int]) -> str:
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        pid, why = 0, error.strerror or ""
    else:
        why = ""
    if pid == 0 and not why:
        line.close()
        _never_return(lambda: serve(Channel(socket.socket(fileno=files[0]), files[1])), parent)
    for file in files:
        os.close(file)
    return f"{pid} {why}".strip()


def _kill(worker: int) -> int:
    """End a child in any case: its status as of `waitpid`."""
    os.kill(worker, signal.SIGKILL)  # which one that has ended by itself does not feel
    return os.waitpid(worker, 0)[1]


def _never_return(run: Callable[[], None], parent: int) -> None:
    """Do what a forked process is for, then end it: what it is a copy of is none of its business.

    It ends when `parent` does, and an interrupt from the keyboard is for that to act upon.
    """
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL))
        if os.getppid() == parent:  # else it was gone before it could be said
            run()
            status = 0
    finally:
        os._exit(status)
