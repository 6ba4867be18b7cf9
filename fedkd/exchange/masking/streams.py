"""Streams of random numbers, added and taken off in place: AES-128 in counter mode."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from torch import Tensor

from fedkd.exchange.messages import Tensors

Words = np.ndarray[tuple[int], np.dtype[np.uint64 | np.uint16]]
"""Flat, modulo 2^64; or modulo 2^16."""

KEY_BYTES = 16
"""Of AES-128, which is as hard to guess as an X25519 secret, and faster than AES-256."""
_AT_ONCE = 2**17
"""Bytes, an eighth of a megabyte: they stay in a core's cache while all streams go over them."""
_STREAMS = 64
"""So many at a time: each keeps its place."""


def flat(numbers: Tensors) -> Words:
    """A copy of tensors of int64, or all of int16, as one vector, in the order of their names."""
    parts = [numbers[name].numpy().reshape(-1) for name in sorted(numbers)]
    joined: Words = np.concatenate([part.view(f"u{part.itemsize}") for part in parts])
    return joined


def shaped(words: Words, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """What `flat` was given, by the shapes that it had."""
    names = sorted(shapes)
    sizes = [int(np.prod(shapes[name], dtype=np.int64)) for name in names]
    parts = torch.split(torch.from_numpy(words.view(f"i{words.itemsize}")), sizes)
    return {n: part.view(tuple(shapes[n])) for n, part in zip(names, parts, strict=True)}


def add(words: Words, plus: Iterable[bytes] = (), minus: Iterable[bytes] = ()) -> None:
    """Add and take off the streams of keys, in place; no stream is ever held whole.

    Args:
        words: (N,).
        plus: keys of 16 bytes, whose streams are added.
        minus: keys whose streams are taken off.
    """
    signed = [*((key, True) for key in plus), *((key, False) for key in minus)]
    nothing, made = bytes(_AT_ONCE), bytearray(_AT_ONCE)
    together = _AT_ONCE // words.itemsize
    for first in range(0, len(signed), _STREAMS):
        streams = [(_stream(key), sign) for key, sign in signed[first : first + _STREAMS]]
        for start in range(0, len(words), together):
            part = words[start : start + together]
            size = part.nbytes
            drawn = np.frombuffer(made, f"<u{words.itemsize}", count=len(part))
            for encryptor, sign in streams:
                encryptor.update_into(memoryview(nothing)[:size], made)
                if sign:
                    part += drawn
                else:
                    part -= drawn


def _stream(key: bytes) -> CipherContext:
    """AES-128's key stream in counter mode, from a counter of zero."""
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
