"""Masks that cancel: what one client sends is random to all others, what all send is their sum.

Each two clients of a roster share a secret, whose stream one of them adds to its numbers and the
other subtracts: the first step of Bonawitz et al. 2017, "Practical Secure Aggregation for
Privacy-Preserving Machine Learning", CCS 2017. Numbers are fixed point, modulo 2^64. There are no
shares of secrets, so the sum comes out only if every client of the roster answers.

A pair's key is HKDF-SHA256 of an X25519 agreement, bound to the whole roster, the experiment, the
round and the pair; its stream is AES-256 in counter mode.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from fedkd.errors import FederationError, MessageError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Tensors
from fedkd.specs import TensorSpec

Roster = Mapping[int, bytes]
"""The clients of a sum, and the public key that each made for it."""

KEY_BYTES = 32
"""Of a secret, and of a public key."""
RESOLUTION = 2.0**-24
"""The step of the fixed point; a number loses at most half of it."""
_RANGE = 2.0**28
"""The most that a sum may be, either way. A float64 below it is finer than the fixed point; were it
coarser, the sum's last bits would tell of clients whose numbers are small."""


def new_secret() -> bytes:
    """A fresh secret, from the operating system; for one answer and no more."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_key(secret: bytes) -> bytes:
    """What others must know to share a secret with whoever holds this one."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def check_key(key: bytes) -> None:
    """Refuse what no client may be told of as another's public key.

    Raises:
        MessageError: not 32 bytes, or a point that makes every agreement the same.
    """
    _agreed(new_secret(), key)


def expected(plain: Expected) -> Expected:
    """What tensors like these look like once they are masked."""
    return {name: TensorSpec(spec.shape, torch.int64) for name, spec in plain.items()}


def most(parties: int) -> float:
    """The most that a number may be, either way, where as many parties add up."""
    return _RANGE / parties


def fixed(tensors: Tensors, *, parties: int) -> dict[str, Tensor]:
    """Numbers as multiples of `RESOLUTION`, int64.

    Args:
        tensors: any shapes, of integers or float64; a coarser type would show through the sum.
        parties: how many will be added up, each of them within the same bounds.

    Raises:
        ValueError: a tensor is of a coarser type.
        FederationError: a number is not finite, or so large that a sum could leave the range.
    """
    limit, numbers = most(parties), {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float64:
            raise ValueError(f"Expected field {name!r} in float64 to mask it, got {tensor.dtype}.")
        value = tensor.detach().double()
        if not bool((value.abs() <= limit).all()):  # which NaN is not
            raise FederationError(
                f"field {name!r} holds {float(value.abs().max()):g}: secure aggregation over "
                f"{parties} clients carries at most {limit:.3g} either way; scale the features "
                "down, or leave out privacy.secure_aggregation"
            )
        numbers[name] = (value / RESOLUTION).round().long()
    return numbers


def floating(numbers: Tensors) -> dict[str, Tensor]:
    """Fixed point (int64) as float64."""
    return {name: number.double() * RESOLUTION for name, number in numbers.items()}


def masked(
    numbers: Tensors, *, client: int, secret: bytes, roster: Roster, experiment: str, round: int
) -> dict[str, Tensor]:
    """Numbers (int64) under this client's masks: uniform to whoever knows no secret of a pair.

    Every client of the roster must mask tensors of the same names and shapes, with the same roster,
    experiment and round; otherwise the masks do not cancel.

    Args:
        numbers: by name.
        client: who masks.
        secret: of which the roster holds the public key; never used twice.
        roster: at least one other client beside this one.
        experiment: its name.
        round: of the experiment.

    Raises:
        MessageError: a key in the roster is none.
        ValueError: the roster does not have this client with this secret's key, or nobody else.
    """
    if roster.get(client) != public_key(secret) or len(roster) < 2:
        raise ValueError(f"Expected a roster of two or more, client {client} with its key in it.")
    names, salt = sorted(numbers), _digest(roster)
    flat = np.concatenate([_words(numbers[name]) for name in names])
    for peer, key in sorted(roster.items()):
        if peer == client:
            continue
        pair = min(client, peer), max(client, peer)
        context = _context(experiment, round, pair)
        shared = _shared(secret, key, salt=salt, info=context)
        mask = np.frombuffer(stream(shared, flat.nbytes), dtype="<u8")
        flat = flat + mask if client < peer else flat - mask  # modulo 2^64, as numpy's do
    parts = torch.split(torch.from_numpy(flat.view(np.int64)), [numbers[n].numel() for n in names])
    return {n: part.view(numbers[n].shape) for n, part in zip(names, parts, strict=True)}


def total(parts: Iterable[Tensors]) -> dict[str, Tensor]:
    """The sum by name, modulo 2^64; of a whole roster's masked numbers, that of the numbers."""
    first, *others = parts
    sums = {}
    for name, tensor in first.items():
        flat = _words(tensor)
        for other in others:
            flat = flat + _words(other[name])
        sums[name] = torch.from_numpy(flat.view(np.int64)).view(tensor.shape)
    return sums


def stream(key: bytes, size: int) -> bytes:
    """The first `size` bytes of AES-256's key stream in counter mode, from a counter of zero."""
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(size))


def _words(number: Tensor) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    """Flat, so that no number alone is warned of when it wraps around."""
    return number.numpy().reshape(-1).view(np.uint64)


def _shared(secret: bytes, key: bytes, *, salt: bytes, info: bytes) -> bytes:
    """What two clients alone can compute, 32 bytes."""
    return HKDF(SHA256(), length=32, salt=salt, info=info).derive(_agreed(secret, key))


def _agreed(secret: bytes, key: bytes) -> bytes:
    try:
        other = X25519PublicKey.from_public_bytes(key)
        return X25519PrivateKey.from_private_bytes(secret).exchange(other)
    except ValueError as error:  # not 32 bytes, or a point of low order
        raise MessageError("a public key for secure aggregation is none") from error


def _digest(roster: Roster) -> bytes:
    """SHA-256 of the roster: were one client told another than the rest, nothing would cancel."""
    content = b"".join(struct.pack("<Q", client) + key for client, key in sorted(roster.items()))
    return hashlib.sha256(content).digest()


def _context(experiment: str, round: int, pair: tuple[int, int]) -> bytes:
    return b"fedkd masks\0" + struct.pack("<QQQ", round, *pair) + experiment.encode()
