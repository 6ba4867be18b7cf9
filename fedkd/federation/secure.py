"""Secure aggregation's two messages: what clients and server say, and what a client refuses.

`keys`: each client of the cohort makes a key pair and answers the public key. `learn`: all keys go
out as the roster, beside the broadcast, and each client's answer comes back under the masks of
`exchange.masks`. A secret serves one answer. It lies in the client's own state in between, since
another process may make the answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedkd.errors import FederationError, MessageError
from fedkd.exchange import masks
from fedkd.exchange.codec import Expected, decode
from fedkd.exchange.masks import KEY_BYTES, Roster
from fedkd.exchange.messages import Broadcast, Public, Tensors, Upload, Value, group, prefixed
from fedkd.federation.state import ClientState
from fedkd.methods.core.setting import Setting
from fedkd.specs import TensorSpec

ACTION = "keys"
_NAME = "secure_aggregation"
_KEY = f"{_NAME}/key"
_MEMBERS = f"{_NAME}/members"
"""A one from each client: their sum tells that all masks cancelled."""
_KEY_ALONE = {_KEY: TensorSpec((KEY_BYTES,), torch.uint8)}


def make_key(state: ClientState, round: int) -> dict[str, Tensor]:
    """A client's answer to `keys`; the secret stays in its state."""
    secret = masks.new_secret()
    state.keep_secret(secret, round=round)
    return {_KEY: _tensor(masks.public_key(secret))}


def read_key(payload: bytes) -> Tensors:
    """What a client answered to `keys`, looked at before others are told of it.

    Raises:
        MessageError: it is no public key.
    """
    answer = decode(payload, _KEY_ALONE)
    masks.check_key(bytes(answer[_KEY].tolist()))
    return answer


def with_roster(broadcast: Broadcast, answers: Mapping[int, Tensors]) -> Broadcast:
    """The broadcast, and beside it the keys that clients answered."""
    roster = {
        "clients": torch.tensor(sorted(answers)),
        "keys": torch.stack([answers[client][_KEY] for client in sorted(answers)]),
    }
    return replace(broadcast, common={**broadcast.common, **prefixed(_NAME, roster)})


def split_roster(received: Tensors) -> tuple[dict[str, Tensor], Roster]:
    """What a client received as the method's broadcast and the roster.

    Raises:
        MessageError: there is no roster in it.
    """
    keyed = group(_NAME, received)
    clients, keys = keyed.get("clients"), keyed.get("keys")
    if clients is None or keys is None or keys.shape != (len(clients), KEY_BYTES):
        raise MessageError("the call has no roster, which secure aggregation needs")
    roster = {int(client): bytes(key.tolist()) for client, key in zip(clients, keys, strict=True)}
    return {n: t for n, t in received.items() if not n.startswith(f"{_NAME}/")}, roster


@dataclass(frozen=True)
class Masking:
    """What one client needs to mask one answer, once."""

    client: int
    secret: bytes
    roster: Roster
    experiment: str
    round: int

    @classmethod
    def of(
        cls, setting: Setting, state: ClientState, client: int, round: int, roster: Roster
    ) -> "Masking":
        """Take the round's secret and look at the roster, before any data is touched.

        Without differential privacy a round's parts are the same each time, so that two sums over
        different clients would differ by one client's own: only the first roster is answered.

        Raises:
            MessageError: there is no secret, or the roster is none that a client may answer.
        """
        secret = state.take_secret(round=round)
        if secret is None:
            raise MessageError("the round's key was used already, or never asked for")
        least = setting.quorum(setting.cohort_size)
        known = set(range(setting.clients))
        if len(roster) < least or not set(roster) <= known:
            raise MessageError(f"the roster is not of {least} clients or more of {len(known)}")
        if roster.get(client) != masks.public_key(secret):
            raise MessageError("the roster has not the key that this client made")
        if len(set(roster.values())) < len(roster):
            raise MessageError("the roster has one key twice")
        if setting.experiment.privacy.unit == "none":
            peers = ",".join(map(str, sorted(roster)))
            if (first := state.first_peers(peers, round=round)) != peers:
                raise MessageError(
                    f"the round was answered for the sum of clients {first}: the sum of {peers} "
                    "beside it could bare one of them"
                )
        return cls(client, secret, roster, setting.experiment.name, round)

    def __call__(self, upload: Upload) -> Upload:
        """The upload under masks, each value with the provenance that it had.

        Raises:
            FederationError: a number is too large to be carried.
        """
        plain = {name: value.data for name, value in upload.values.items()}
        numbers = masks.fixed(plain, parties=len(self.roster)) | {_MEMBERS: torch.tensor(1)}
        masked = masks.masked(
            numbers,
            client=self.client,
            secret=self.secret,
            roster=self.roster,
            experiment=self.experiment,
            round=self.round,
        )
        marked = upload.with_values({_MEMBERS: Value(numbers[_MEMBERS], Public())})
        return Upload(
            {name: Value(masked[name], each.provenance) for name, each in marked.values.items()}
        )


def expected(plain: Expected) -> Expected:
    """What a masked upload looks like whose plain one is like this."""
    return masks.expected({**plain, _MEMBERS: TensorSpec(())})


def total(uploads: Mapping[int, Tensors], plain: Expected) -> dict[str, Tensor]:
    """The sum, in float64, of what all clients of a roster sent.

    Args:
        uploads: masked, from all of the roster.
        plain: what a client's own part would look like.

    Raises:
        FederationError: the masks do not cancel.
    """
    names = expected(plain)
    sums = masks.total({name: each[name] for name in names} for each in uploads.values())
    if int(sums.pop(_MEMBERS)) != len(uploads):
        raise FederationError(
            f"the masks of {len(uploads)} clients do not cancel: one of them sent what it should "
            "not, or was told another roster; run again with --resume"
        )
    return masks.floating(sums)


def _tensor(key: bytes) -> Tensor:
    return torch.tensor(list(key), dtype=torch.uint8)
