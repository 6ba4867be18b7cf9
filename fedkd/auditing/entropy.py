"""Where noise comes from: what is asked of the operating system, and what AES makes of it.

No statistic on noise tells a counter from a key: each of its streams looks like noise. So this
looks at the source at work, gives it the same entropy twice, and then other entropy.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from torch import Tensor

from fedkd.auditing.sizes import CHANCE
from fedkd.auditing.verdicts import Check, checked
from fedkd.privacy import source

_KEY = 32
"""Bytes of a key of AES-256."""
_BYTES = 6
"""That a draw needs at least: fewer tell its neighbours."""


@dataclass
class Seen:
    """What a release asked for, in one thread."""

    given: list[bytes] = field(default_factory=list)
    """What the operating system was asked for."""
    keys: list[bytes] = field(default_factory=list)
    """Of AES."""
    streamed: int = 0
    """Bytes that AES made."""
    digest: Any = field(default_factory=hashlib.sha256)
    """Of these bytes."""


def check_source(what: str, release: Callable[[], Tensor]) -> Check:
    """Noise comes from AES-256, under fresh keys from the operating system, and from nothing else.

    Args:
        what: is released.
        release: noise alone, some fifty numbers at the least, drawn anew in each call.
    """
    with _operating_system(b"one") as seen:
        noise = release()
    with _operating_system(b"one"):
        again = release()
    with _operating_system(b"other") as others:
        other = release()
    fault = _fault(seen, noise, again)
    # Small noise that is rounded is often the same, so its bytes are compared; and the noise itself
    # where that is no chance.
    same = seen.digest.digest() == others.digest.digest()
    if not fault and (same or (noise.equal(other) and _repeats(noise) < CHANCE)):
        fault = "other entropy makes the same noise"
    found = (
        f"{seen.streamed:,} bytes of AES-256, fresh keys from the operating system: "
        f"{len(seen.keys)}"
    )
    return checked(f"source of the noise on {what}", not fault, fault or found)


def _fault(seen: Seen, noise: Tensor, again: Tensor) -> str:
    if not seen.keys:
        return "the noise is not made by AES: whoever knows part of it may compute the rest"
    if any(len(key) != _KEY or key not in seen.given for key in seen.keys):
        return "AES has another key than 32 fresh bytes of the operating system's"
    if seen.streamed < _BYTES * noise.numel():
        return (
            f"AES made {seen.streamed:,} bytes for {noise.numel():,} numbers: some are not its own"
        )
    if not noise.equal(again):
        return "the noise follows from more than the operating system's entropy"
    return ""


def _repeats(noise: Tensor) -> float:
    """The chance that noise whose values are as frequent as these comes out the same again."""
    shares = np.unique(noise.numpy(), return_counts=True)[1] / noise.numel()
    return float((shares**2).sum() ** noise.numel())


@contextmanager
def _operating_system(entropy: bytes) -> Iterator[Seen]:
    """Give this thread `entropy`, stretched, for the operating system's, and watch.

    Other threads get the system's own: what they draw may protect somebody.
    """
    seen, this_thread = Seen(), threading.get_ident()

    def instead(real: Callable[..., bytes]) -> Callable[..., bytes]:
        def bytes_of(count: int = _KEY) -> bytes:
            if threading.get_ident() != this_thread:
                return real(count)
            number = len(seen.given).to_bytes(8)
            seen.given.append(hashlib.shake_256(entropy + number).digest(count))
            return seen.given[-1]

        return bytes_of

    def cipher(algorithm: Any, mode: Any) -> Any:
        real_cipher = Cipher(algorithm, mode)
        if threading.get_ident() != this_thread or not isinstance(algorithm, algorithms.AES):
            return real_cipher
        seen.keys.append(bytes(algorithm.key))
        return _Counted(real_cipher, seen)

    with ExitStack() as patches:
        for module, name in ((secrets, "token_bytes"), (os, "urandom")):
            fake = instead(getattr(module, name))
            patches.enter_context(mock.patch.object(module, name, fake))
        patches.enter_context(mock.patch.object(source, "Cipher", cipher))
        yield seen


class _Counted:
    """A cipher, or its encryptor, whose bytes are counted."""

    def __init__(self, real: Any, seen: Seen) -> None:
        self._real = real
        self._seen = seen

    def encryptor(self) -> "_Counted":
        return _Counted(self._real.encryptor(), self._seen)

    def update(self, data: bytes) -> bytes:
        self._seen.streamed += len(data)
        keystream: bytes = self._real.update(data)
        self._seen.digest.update(keystream)
        return keystream
