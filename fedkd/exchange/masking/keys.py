"""Keys: each client's two fresh pairs, and what two clients alone can compute of them.

One pair is for masks: its secret half is shared out, so that others can take a lost client's masks
off. The other seals what clients say to each other by way of the server, and never leaves. Both are
X25519 (RFC 7748), what is derived is by HKDF-SHA256 (RFC 5869), and seals are ChaCha20-Poly1305
(RFC 8439).
"""

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedkd.errors import MessageError

KEY_BYTES = 32
"""Of a secret, and of a public key."""
_NONCE = bytes(12)
"""One message is sealed under each key, so that nothing has to tell two apart."""


@dataclass(frozen=True)
class KeyPairs:
    """One client's secrets, or their public halves; for one round and no more."""

    masks: bytes
    seals: bytes

    @classmethod
    def new(cls) -> "KeyPairs":
        """Fresh secrets, from the operating system."""
        return cls(*(X25519PrivateKey.generate().private_bytes_raw() for _ in range(2)))

    @property
    def public(self) -> "KeyPairs":
        """Of secrets, what others must know."""
        return KeyPairs(public_key(self.masks), public_key(self.seals))


@dataclass(frozen=True)
class Between:
    """What two clients alone can compute of their keys for seals."""

    outward: bytes
    """Seals what the one says to the other; each direction has its own."""
    inward: bytes
    agreed: bytes
    """Of this they derive what tells the server that they agree."""

    @classmethod
    def of(cls, own: int, secret: bytes, other: int, key: bytes, transcript: bytes) -> "Between":
        """As client `own` sees it.

        Raises:
            MessageError: the other's public key is none.
        """
        low, high = min(own, other), max(own, other)
        known = derive(agree(secret, key), transcript, b"between", low, high, size=3 * KEY_BYTES)
        up, down, agreed = (known[i * KEY_BYTES : (i + 1) * KEY_BYTES] for i in range(3))
        return cls(up, down, agreed) if own < other else cls(down, up, agreed)


def public_key(secret: bytes) -> bytes:
    """The public half of a secret."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def check_key(key: bytes) -> None:
    """Refuse what no client may be told of as another's public key.

    Raises:
        MessageError: not 32 bytes, or a point that makes every agreement the same.
    """
    agree(X25519PrivateKey.generate().private_bytes_raw(), key)


def agree(secret: bytes, key: bytes) -> bytes:
    """What a secret and another's public key make.

    Raises:
        MessageError: the public key is none.
    """
    try:
        other = X25519PublicKey.from_public_bytes(key)
        return X25519PrivateKey.from_private_bytes(secret).exchange(other)
    except ValueError as error:  # not 32 bytes, or a point of low order
        raise MessageError("a public key for secure aggregation is none") from error


def derive(
    secret: bytes, transcript: bytes, purpose: bytes, *numbers: int, size: int = KEY_BYTES
) -> bytes:
    """A key of `size` bytes for one purpose; another transcript gives another."""
    info = b"fedkd " + purpose + b"".join(b"\0%d" % number for number in numbers)
    return HKDF(SHA256(), length=size, salt=transcript, info=info).derive(secret)


def seal(key: bytes, message: bytes, about: bytes) -> bytes:
    """A message that only who has the key can read or make, 16 bytes longer."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, message, about)


def unseal(key: bytes, sealed: bytes, about: bytes) -> bytes:
    """What `seal` was given.

    Raises:
        MessageError: it was made with another key, or about another thing.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, about)
    except InvalidTag as error:
        raise MessageError(
            "a share is not sealed by the client that it is said to be of"
        ) from error
