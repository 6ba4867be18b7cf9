"""What clients compute in each step of one secure sum, and what they refuse.

Keys: each client makes two key pairs. Shares: each draws a seed for a mask of its own, and splits
that seed and the secret of its pair for masks among its neighbours, sealed. Answers: it adds its
own mask and one with each neighbour to its numbers. Opening: of each client whose numbers arrived,
neighbours hand out the share of its seed, of each other one that of its key, of none both. So the
server takes off the masks of those in the sum, and of those whom the lost left behind; what comes
late stays under its own mask. Bonawitz et al. 2017, CCS.

Each step is bound to all before it. A server that told two clients two sets of survivors would get
nothing of either's shares: each hands them out under a key that it splits among its neighbours in
turn, each part under a pad that this neighbour, asked for the same set, hands out. That takes the
place of a message in which all sign the set (Bonawitz et al.'s fourth round).
"""

import hashlib
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from fedkd.errors import MessageError
from fedkd.exchange.masking import graph, streams
from fedkd.exchange.masking.graph import Degree
from fedkd.exchange.masking.keys import Between, KeyPairs, agree, derive, seal, unseal
from fedkd.exchange.masking.shares import SHARE_BYTES, split, xor
from fedkd.exchange.masking.streams import Words


@dataclass(frozen=True)
class Circle:
    """The clients of one sum, as each of them knows them."""

    roster: Mapping[int, KeyPairs]
    """The public keys that each made for it; at least two clients."""
    least: int
    """How many must be left in the end: more than half, see `graph.fits`."""
    context: bytes
    """Which sum it is: the experiment and the round."""

    @cached_property
    def transcript(self) -> bytes:
        """SHA-256 of all that is said so far."""
        told = (b"%d\0" % c + keys.masks + keys.seals for c, keys in sorted(self.roster.items()))
        return hashlib.sha256(_digest(b"keys", self.context) + b"".join(told)).digest()

    @cached_property
    def degree(self) -> Degree:
        """How many neighbours each has, and how many of them open what it shared."""
        return graph.degree(len(self.roster), self.least)

    @cached_property
    def neighbours(self) -> dict[int, tuple[int, ...]]:
        """Each client's, ascending."""
        return graph.neighbours(sorted(self.roster), self.degree.neighbours, self.transcript)

    def after(self, *steps: Collection[int]) -> bytes:
        """The transcript once it is said who took each further step."""
        transcript = self.transcript
        for clients in steps:
            transcript = _digest(transcript, b",".join(b"%d" % each for each in sorted(clients)))
        return transcript

    def check(self, left: Collection[int], among: Collection[int], client: int) -> None:
        """Refuse a set of clients that are said to have taken a step, with this client in it.

        Raises:
            MessageError: it could bare a client.
        """
        if not set(left) <= set(among):
            raise MessageError("the server names clients that did not take the step before")
        if client not in left:
            raise MessageError("the server names those who took the last step, and not this client")
        if not graph.holds(
            self.neighbours, left, threshold=self.degree.threshold, least=self.least
        ):
            raise MessageError(
                f"{len(left)} clients are left: expected {self.least}, and of each one's "
                f"neighbours {self.degree.threshold}"
            )


@dataclass(frozen=True)
class Sharing:
    """A client that has shared its secrets, and has not answered yet."""

    client: int
    circle: Circle
    masks: bytes
    """Its secret of the pair for masks."""
    seed: bytes
    """Of its own mask."""
    between: Mapping[int, Between]
    """With each neighbour."""

    @classmethod
    def begin(
        cls, client: int, pairs: KeyPairs, circle: Circle
    ) -> tuple["Sharing", dict[int, bytes]]:
        """Share a client's secrets: itself after that, and what each neighbour is to be sent.

        Args:
            client: who shares.
            pairs: its secrets, made for this circle.
            circle: with this client in it.

        Raises:
            MessageError: the circle is none that it may be in.
        """
        if circle.roster.get(client) != pairs.public:
            raise MessageError("the roster has not the keys that this client made")
        every = [key for keys in circle.roster.values() for key in (keys.masks, keys.seals)]
        if len(set(every)) < len(every):
            raise MessageError("the roster has one key twice")
        around, t = circle.neighbours[client], circle.degree.threshold
        transcript, seed = circle.transcript, secrets.token_bytes(32)
        between = {
            each: Between.of(client, pairs.seals, each, circle.roster[each].seals, transcript)
            for each in around
        }
        of_masks, of_seed = split(pairs.masks, around, t), split(seed, around, t)
        sealed = {
            each: seal(between[each].outward, of_masks[each] + of_seed[each], transcript)
            for each in around
        }
        return cls(client, circle, pairs.masks, seed, between), sealed

    def receive(self, sharers: Collection[int], sealed: Mapping[int, bytes]) -> "Holding":
        """Take what neighbours shared, and be sure that it is theirs and of this circle.

        Who took keys of an earlier round or attempt for new ones finds out here: nobody has the
        secrets for seals any more.

        Args:
            sharers: all that shared their secrets.
            sealed: from each neighbour among them.

        Raises:
            MessageError: something of it is not as it must be.
        """
        self.circle.check(sharers, self.circle.roster, self.client)
        around = self.circle.neighbours[self.client]
        if sealed.keys() != set(around) & set(sharers):
            raise MessageError("the server does not pass on what each neighbour shared")
        transcript = self.circle.transcript
        shares = {
            each: unseal(self.between[each].inward, message, transcript)
            for each, message in sealed.items()
        }
        agreed = {each: self.between[each].agreed for each in around}
        return Holding(self.client, self.circle, tuple(sorted(sharers)), shares, agreed)

    def mask(self, words: Words, sharers: Collection[int], said: bytes = b"") -> None:
        """Put numbers under this client's masks, in place: uniform to whoever knows no secret.

        Args:
            words: fixed point, in the same order at all clients.
            sharers: all that shared their secrets.
            said: digest of what the server told all clients: between two that were told otherwise
                masks stay on. To tell all but one what makes their numbers known would bare it:
                Pasquini et al. 2022, arXiv:2111.07380.
        """
        signed = mask_keys(self.circle, self.client, self.masks, sharers, sharers, said)
        own = own_key(self.circle, self.seed, sharers, said)
        plus = [own, *(key for other, key in signed.items() if self.client < other)]
        minus = [key for other, key in signed.items() if self.client > other]
        streams.add(words, plus, minus)


@dataclass(frozen=True)
class Opening:
    """What one client hands out at the end."""

    shares: bytes
    """Sealed under a key of its own, one of each neighbour that shared, in ascending order: its
    seed's if it is in the sum, its key's if it is lost."""
    parts: Mapping[int, bytes]
    """Of that key, by neighbour in the sum, each under the neighbour's pad."""
    pads: Mapping[int, bytes]
    """What uncovers this client's part of the neighbour's key."""


@dataclass(frozen=True)
class Holding:
    """A client that has answered, and holds its neighbours' shares."""

    client: int
    circle: Circle
    sharers: tuple[int, ...]
    shares: Mapping[int, bytes]
    """Of a neighbour's key, then of its seed."""
    agreed: Mapping[int, bytes]

    def open(self, survivors: Collection[int]) -> Opening:
        """Hand out one share of each neighbour, once.

        Args:
            survivors: whose numbers are in the sum.

        Raises:
            MessageError: they are none that could be left.
        """
        circle = self.circle
        circle.check(survivors, self.sharers, self.client)
        left = set(survivors)
        around = [each for each in circle.neighbours[self.client] if each in left]
        transcript, key = circle.after(self.sharers, left), secrets.token_bytes(32)
        chosen = {
            each: both[SHARE_BYTES:] if each in left else both[:SHARE_BYTES]
            for each, both in self.shares.items()
        }
        parts = split(key, around, circle.degree.threshold)
        joined = b"".join(chosen[each] for each in sorted(chosen))
        return Opening(
            seal(key, joined, transcript),
            {each: xor(parts[each], self._pad(transcript, self.client, each)) for each in around},
            {each: self._pad(transcript, each, self.client) for each in around},
        )

    def _pad(self, transcript: bytes, splits: int, holds: int) -> bytes:
        other = splits if holds == self.client else holds
        return derive(self.agreed[other], transcript, b"pad", splits, holds, size=SHARE_BYTES)


def mask_keys(
    circle: Circle,
    client: int,
    secret: bytes,
    sharers: Collection[int],
    others: Collection[int],
    said: bytes = b"",
) -> dict[int, bytes]:
    """The key of the mask that a client has with each of its neighbours among others."""
    transcript, found, among = _digest(circle.after(sharers), said), {}, set(others)
    for other in circle.neighbours[client]:
        if other in among:
            agreed, pair = agree(secret, circle.roster[other].masks), sorted((client, other))
            found[other] = derive(agreed, transcript, b"mask", *pair, size=streams.KEY_BYTES)
    return found


def own_key(circle: Circle, seed: bytes, sharers: Collection[int], said: bytes = b"") -> bytes:
    """The key of a client's own mask."""
    transcript = _digest(circle.after(sharers), said)
    return derive(seed, transcript, b"own mask", size=streams.KEY_BYTES)


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
