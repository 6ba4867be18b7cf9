"""Who made a key: each round's public keys are signed by the key that a site is registered with.

So a server cannot make clients up, nor put keys of its own in the place of a site's. A signature is
for one run of one experiment, one round and one client's number. That it is of this very attempt
shows when the client seals shares by it: `exchange.masking.protocol.Sharing.receive`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedkd.errors import MessageError
from fedkd.exchange.masking.keys import KeyPairs

SIGNER_BYTES, SIGNATURE_BYTES = 32, 144
"""Of a public key's SHA-256, and of the longest ECDSA signature, of P-521, with its length."""


@dataclass(frozen=True)
class Signature:
    """By whom, and what; both empty where nobody signs."""

    signer: bytes = bytes(SIGNER_BYTES)
    """The SHA-256 of the public key."""
    content: bytes = b""

    @property
    def padded(self) -> bytes:
        """The content, its length before it, at one size for all."""
        return (bytes([len(self.content)]) + self.content).ljust(SIGNATURE_BYTES, b"\0")

    @classmethod
    def unpadded(cls, signer: bytes, padded: bytes) -> "Signature":
        """What was padded."""
        return cls(signer, padded[1 : 1 + padded[0]])


@dataclass(frozen=True)
class Identity:
    """A site's own key, and what it knows of the others."""

    key: ec.EllipticCurvePrivateKey
    registered: Mapping[str, ec.EllipticCurvePublicKey]
    """The sites' public keys by name, its own too."""
    about: bytes
    """Which run of which experiment."""

    def sign(self, pairs: KeyPairs, *, client: int, round: int) -> Signature:
        """Say that these public keys are this site's, as `client` of `round`."""
        content = self.key.sign(self._said(pairs, client, round), ec.ECDSA(SHA384()))
        return Signature(fingerprint(self.key.public_key()), content)

    def check(
        self, roster: Mapping[int, tuple[KeyPairs, Signature]], *, client: int, round: int
    ) -> None:
        """Refuse a roster that is not of as many registered sites, each by its own word.

        Args:
            roster: public keys and their signature by client.
            client: which of them this site is.
            round: of the experiment.

        Raises:
            MessageError: names the first client that is made up.
        """
        known = {fingerprint(key): (name, key) for name, key in self.registered.items()}
        taken: dict[bytes, int] = {}
        for each, (pairs, signature) in sorted(roster.items()):
            if signature.signer not in known:
                raise MessageError(
                    f"the keys of client {each} are signed by no site that this one knows: put its "
                    "public key into the folder 'clients', if there is such a site"
                )
            name, key = known[signature.signer]
            try:
                key.verify(signature.content, self._said(pairs, each, round), ec.ECDSA(SHA384()))
            except InvalidSignature as error:
                raise MessageError(
                    f"the keys of client {each} are not what site {name!r} signed for this round"
                ) from error
            if (other := taken.setdefault(signature.signer, each)) != each:
                raise MessageError(f"clients {other} and {each} are one site, {name!r}")
        if taken.get(fingerprint(self.key.public_key())) != client:
            raise MessageError(f"client {client} of the roster is not this site")

    def _said(self, pairs: KeyPairs, client: int, round: int) -> bytes:
        about = sha256(self.about).digest()
        return b"fedkd keys\0%d\0%d\0" % (round, client) + about + pairs.masks + pairs.seals


def fingerprint(key: ec.EllipticCurvePublicKey) -> bytes:
    """The SHA-256 of a public key."""
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
