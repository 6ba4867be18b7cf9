"""What goes between a worker and its server: objects by a socket, large ones by shared memory."""

import io
import mmap
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Self

import torch
from torch import Tensor

_LARGE = 2**16
"""Bytes from which on shared memory is worth it: 800 kB cost 2 ms by the socket, .3 by memory."""

Place = tuple[int, int]
"""Where bytes stand in a memory: from which, and how many."""


_Kept = tuple[Place, torch.dtype | None, torch.Size | None]
"""Bytes, or what a tensor is made of: its bytes, its type and its shape."""
_NOTHING = torch.zeros(0, dtype=torch.uint8)


class Channel:
    """One end of a line between two processes that trust each other, since it carries pickles.

    One end asks and the other answers, so the memory holds one message at a time. What else an end
    sends meanwhile, from whichever thread, has neither tensors nor large bytes in it.

    Args:
        line: this end's socket.
        memory: a file without a name, which both ends have.
    """

    def __init__(self, line: socket.socket, memory: int) -> None:
        self._line = Connection(line.detach())
        self._memory = _Memory(memory)
        self._one_at_a_time = threading.Lock()

    @classmethod
    def pair(cls) -> tuple[Self, socket.socket, int]:
        """One end, and what the other one is made of."""
        ours, theirs = socket.socketpair()
        memory = os.memfd_create("fedkd")
        return cls(ours, os.dup(memory)), theirs, memory

    def send(self, *parts: Any) -> None:
        """Send a message of these parts.

        Raises:
            EOFError: the other end is gone.
        """
        file = io.BytesIO()
        with self._one_at_a_time, _gone():
            self._memory.end = 0
            _Pickler(file, self._memory).dump(parts)
            self._line.send_bytes(file.getbuffer())

    def waits(self, seconds: float) -> bool:
        """Whether a message, or the line's end, is there within so many seconds."""
        return self._line.poll(seconds)

    def receive(self) -> tuple[Any, ...]:
        """The next message's parts.

        Raises:
            EOFError: the other end is gone.
        """
        with _gone():
            content = self._line.recv_bytes()
        parts: tuple[Any, ...] = _Unpickler(content, self._memory).load()
        return parts

    def close(self) -> None:
        """Let go of this end."""
        self._line.close()
        self._memory.close()


@contextmanager
def _gone() -> Iterator[None]:
    """Say in one way that the other end is gone."""
    try:
        yield
    except OSError as error:
        raise EOFError from error


class _Memory:
    """A file without a name, mapped as far as it is used."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._mapped: mmap.mmap | None = None
        self.end = 0

    def put(self, content: bytes | memoryview) -> Place:
        start, self.end = self.end, self.end + len(content)
        if self.end > os.fstat(self._file).st_size:
            os.ftruncate(self._file, self.end)
        self._map(self.end)[start : self.end] = content
        return start, len(content)

    def get(self, place: Place) -> memoryview:
        """To be copied and let go of before anything else is put there."""
        start, size = place
        return memoryview(self._map(start + size))[start : start + size]

    def close(self) -> None:
        if self._mapped is not None:
            self._mapped.close()
        os.close(self._file)

    def _map(self, end: int) -> mmap.mmap:
        if self._mapped is None or len(self._mapped) < end:
            self._mapped = mmap.mmap(self._file, 0)
        return self._mapped


class _Pickler(pickle.Pickler):
    """Puts tensors and large bytes into a memory, and their places into the pickle."""

    def __init__(self, file: io.BytesIO, memory: _Memory) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._put = memory.put

    def persistent_id(self, value: Any) -> _Kept | None:
        if type(value) is bytes and len(value) >= _LARGE:
            return self._put(value), None, None
        if type(value) is Tensor:
            flat = value.detach().contiguous().reshape(-1).view(torch.uint8)
            return self._put(flat.numpy().data), value.dtype, value.shape
        return None


class _Unpickler(pickle.Unpickler):
    """Finds them there again."""

    def __init__(self, content: bytes, memory: _Memory) -> None:
        super().__init__(io.BytesIO(content))
        self._get = memory.get

    def persistent_load(self, kept: _Kept) -> bytes | Tensor:
        place, dtype, shape = kept
        with self._get(place) as there:
            if dtype is None or shape is None:
                return bytes(there)
            # Without a byte there is nothing to share with.
            own = torch.frombuffer(bytearray(there), dtype=torch.uint8) if len(there) else _NOTHING
        return own.view(dtype).reshape(shape)
