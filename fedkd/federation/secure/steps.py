"""A client's four steps in one secure sum, and what it refuses.

Between two steps what a client knows lies in its own state, since another process may take the
next. Each step takes it away: none can be asked for twice, and none out of turn.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

from fedkd.errors import MessageError
from fedkd.exchange.codec import decode, encode
from fedkd.exchange.masking import fixed_point, streams
from fedkd.exchange.masking.keys import Between, KeyPairs
from fedkd.exchange.masking.protocol import Circle, Holding, Sharing
from fedkd.exchange.messages import Public, Tensors, Upload, Value
from fedkd.federation.secure import messages
from fedkd.federation.secure.identity import Identity, Signature
from fedkd.federation.secure.messages import MEMBERS, SignedKeys, to_bytes, to_rows
from fedkd.federation.state import ClientState
from fedkd.methods.core.setting import Setting


@dataclass(frozen=True)
class SumMember:
    """One client of one round's sum, as it knows it itself."""

    setting: Setting
    state: ClientState
    client: int
    round: int
    identity: Identity | None = None
    """By which sites know each other; None in a simulation, whose clients are one person's."""

    def keep(self, step: str, tensors: Tensors) -> None:
        """Keep what the next step needs, in place of what the last one did."""
        self.state.keep_secret(f"{step}\n".encode() + encode(tensors), round=self.round)

    def take(self, step: str) -> dict[str, Tensor]:
        """What the step before kept, which is forgotten.

        Raises:
            MessageError: it was used already, or the step before was never taken.
        """
        kept = self.state.take_secret(round=self.round)
        name, _, content = (kept or b"").partition(b"\n")
        if name != step.encode():
            raise MessageError(
                f"the round's secrets for the step after {step!r} were used already, or never made"
            )
        return decode(content)


def make_keys(member: SumMember) -> dict[str, Tensor]:
    """A client's answer to `keys`; the secrets stay in its state."""
    pairs = KeyPairs.new()
    member.keep(messages.KEYS, {"pairs": to_rows([pairs.masks, pairs.seals])})
    signature = Signature()
    if member.identity is not None:
        signature = member.identity.sign(pairs.public, client=member.client, round=member.round)
    return messages.of_keys(SignedKeys(pairs.public, signature))


def share(member: SumMember, received: Tensors) -> dict[str, Tensor]:
    """A client's answer to `shares`.

    Raises:
        MessageError: the roster is none that this client may be in.
    """
    masks, seals = (to_bytes(row) for row in member.take(messages.KEYS)["pairs"])
    roster = messages.read_roster(received)
    least = member.setting.quorum(member.setting.cohort_size)
    cohort = member.setting.cohort(member.round)
    if len(roster) < least or not set(roster) <= set(cohort):
        raise MessageError(
            f"the roster is not of {least} clients or more of the {len(cohort)} that are asked"
        )
    if member.identity is not None:
        signed = {client: (each.pairs, each.signature) for client, each in roster.items()}
        member.identity.check(signed, client=member.client, round=member.round)
    pairs = {client: each.pairs for client, each in roster.items()}
    circle = messages.circle(pairs, member.setting, member.round)
    sharing, sealed = Sharing.begin(member.client, KeyPairs(masks, seals), circle)
    member.keep(
        messages.SHARES,
        {
            **_of_roster(circle),
            "own": to_rows([sharing.masks, sharing.seed]),
            "between": torch.stack(
                [
                    to_rows([each.outward, each.inward, each.agreed])
                    for _, each in sorted(sharing.between.items())
                ]
            ),
        },
    )
    return messages.of_shares(sealed)


@dataclass(frozen=True)
class Masking:
    """What one client needs to mask one answer, once."""

    member: SumMember
    sharing: Sharing
    holding: Holding
    said: bytes
    """SHA-256 of what the server told all clients."""

    @classmethod
    def of(cls, member: SumMember, said: bytes, beside: bytes) -> "Masking":
        """Take what neighbours shared, before any data is touched.

        Args:
            member: the client.
            said: the call's payload, the same for all.
            beside: what is for this client alone.

        Raises:
            MessageError: it is not what they shared in this very attempt.
        """
        kept = member.take(messages.SHARES)
        circle = _circle(member, kept)
        around = circle.neighbours[member.client]
        masks, seed = (to_bytes(row) for row in kept["own"])
        between = {
            each: Between(*(to_bytes(row) for row in rows))
            for each, rows in zip(around, kept["between"], strict=True)
        }
        sharing = Sharing(member.client, circle, masks, seed, between)
        sharers = messages.read_clients(decode(said))
        known = set(sharers)
        sealed = messages.read_shares(beside, [each for each in around if each in known])
        return cls(member, sharing, sharing.receive(sharers, sealed), sha256(said).digest())

    def __call__(self, upload: Upload) -> Upload:
        """The upload under masks, each value with the provenance that it had.

        Raises:
            FederationError: a number is too large to be carried.
        """
        plain = {name: value.data for name, value in upload.values.items()}
        circle, holding = self.sharing.circle, self.holding
        numbers = fixed_point.fixed(plain, parties=len(circle.roster))
        numbers[MEMBERS] = fixed_point.ones(next(iter(numbers.values())).dtype)
        words = streams.flat(numbers)
        self.sharing.mask(words, holding.sharers, self.said)
        masked = streams.shaped(words, {name: each.shape for name, each in numbers.items()})
        self.member.keep(
            _ANSWERED,
            {
                **_of_roster(circle),
                "sharers": torch.tensor(holding.sharers),
                "shares": to_rows([share for _, share in sorted(holding.shares.items())]),
                "agreed": to_rows([agreed for _, agreed in sorted(holding.agreed.items())]),
            },
        )
        marked = upload.with_values({MEMBERS: Value(numbers[MEMBERS], Public())})
        return Upload(
            {name: Value(masked[name], each.provenance) for name, each in marked.values.items()}
        )


def open_shares(member: SumMember, received: Tensors) -> dict[str, Tensor]:
    """A client's answer to `open`.

    Without differential privacy a round's parts are the same each time, so that two sums over
    different clients would differ by one client's own: only the first set is opened.

    Raises:
        MessageError: the survivors are none that could be left, or another set than before.
    """
    kept = member.take(_ANSWERED)
    circle = _circle(member, kept)
    sharers, around = tuple(kept["sharers"].tolist()), circle.neighbours[member.client]
    shares = dict(zip([c for c in around if c in set(sharers)], kept["shares"], strict=True))
    holding = Holding(
        member.client,
        circle,
        sharers,
        {client: to_bytes(row) for client, row in shares.items()},
        {client: to_bytes(row) for client, row in zip(around, kept["agreed"], strict=True)},
    )
    survivors = messages.read_clients(received)
    opening = holding.open(survivors)
    if member.setting.experiment.privacy.unit == "none":
        peers = ",".join(map(str, survivors))
        if (first := member.state.first_peers(peers, round=member.round)) != peers:
            raise MessageError(
                f"the round was opened for the sum of clients {first}: the sum of {peers} "
                "beside it could bare one of them"
            )
    return messages.of_opening(opening)


_ANSWERED = "answer"


def _of_roster(circle: Circle) -> dict[str, Tensor]:
    clients = sorted(circle.roster)
    rows = [to_rows([circle.roster[each].masks, circle.roster[each].seals]) for each in clients]
    return {"clients": torch.tensor(clients), "keys": torch.stack(rows)}


def _circle(member: SumMember, kept: Mapping[str, Tensor]) -> Circle:
    roster = {
        client: KeyPairs(to_bytes(keys[0]), to_bytes(keys[1]))
        for client, keys in zip(kept["clients"].tolist(), kept["keys"], strict=True)
    }
    return messages.circle(roster, member.setting, member.round)
