"""What clients and server say to each other in one secure sum, as tensors.

`keys`: each client answers two public keys, signed. `shares`: all keys go out as the roster, and
each client answers a sealed share for each neighbour. `learn`: these are passed on beside the
broadcast, and the answer comes back under masks. `open`: the server says whose answers it has, and
each client answers one share of each neighbour. See `exchange.masking.protocol`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedkd.errors import MessageError
from fedkd.exchange.codec import Expected, decode
from fedkd.exchange.masking import fixed_point
from fedkd.exchange.masking.keys import KEY_BYTES, KeyPairs, check_key
from fedkd.exchange.masking.protocol import Circle, Opening
from fedkd.exchange.masking.shares import SHARE_BYTES
from fedkd.exchange.messages import Tensors, group, prefixed
from fedkd.federation.secure.identity import SIGNATURE_BYTES, SIGNER_BYTES, Signature
from fedkd.methods.core.setting import Setting
from fedkd.specs import TensorSpec

KEYS, SHARES, OPEN = "keys", "shares", "open"
"""The steps beside `client.ACTION`, which comes before the last."""
MEMBERS = "secure_aggregation/members"
"""Ones from each client: their sum tells that all masks came off."""
_NAME = "secure_aggregation"
_TAG = 16
"""Bytes by which something sealed is longer."""
_SEALED = 2 * SHARE_BYTES + _TAG
_SIGNED_KEYS = {
    f"{_NAME}/keys": TensorSpec((2, KEY_BYTES), torch.uint8),
    f"{_NAME}/signer": TensorSpec((SIGNER_BYTES,), torch.uint8),
    f"{_NAME}/signature": TensorSpec((SIGNATURE_BYTES,), torch.uint8),
}


@dataclass(frozen=True)
class SignedKeys:
    """A client's public keys for one round, and who says so; nobody does in a simulation."""

    pairs: KeyPairs
    signature: Signature


Roster = Mapping[int, SignedKeys]


def circle(roster: Mapping[int, KeyPairs], setting: Setting, round: int) -> Circle:
    """The clients of a round's sum, as both sides know them."""
    least = setting.quorum(setting.cohort_size)
    return Circle(roster, least, f"{setting.experiment.name}\0{round}".encode())


def of_keys(signed: SignedKeys) -> dict[str, Tensor]:
    """A client's answer to `keys`."""
    told = {
        "keys": to_rows([signed.pairs.masks, signed.pairs.seals]),
        "signer": _bytes(signed.signature.signer),
        "signature": _bytes(signed.signature.padded),
    }
    return prefixed(_NAME, told)


def read_keys(payload: bytes) -> dict[str, Tensor]:
    """What a client answered to `keys`, looked at before others are told of it.

    Raises:
        MessageError: they are no public keys.
    """
    answer = decode(payload, _SIGNED_KEYS)
    for key in answer[f"{_NAME}/keys"]:
        check_key(to_bytes(key))
    return answer


def of_roster(answers: Mapping[int, Tensors]) -> dict[str, Tensor]:
    """What all are told of the answers to `keys`."""
    clients = sorted(answers)
    stacked = {
        name: torch.stack([answers[client][name] for client in clients]) for name in _SIGNED_KEYS
    }
    return {f"{_NAME}/clients": torch.tensor(clients), **stacked}


def read_roster(received: Tensors) -> Roster:
    """The roster that a client was told.

    Raises:
        MessageError: there is none.
    """
    told = group(_NAME, received)
    clients = told.get("clients", torch.zeros(0))
    for name, spec in _SIGNED_KEYS.items():
        field = received.get(name)
        if clients.dim() != 1 or field is None or field.shape != (len(clients), *spec.shape):
            raise MessageError("the call has no roster, which secure aggregation needs")
    rows = zip(clients.tolist(), told["keys"], told["signer"], told["signature"], strict=True)
    return {
        client: SignedKeys(
            KeyPairs(to_bytes(keys[0]), to_bytes(keys[1])),
            Signature.unpadded(to_bytes(signer), to_bytes(signature)),
        )
        for client, keys, signer, signature in rows
    }


def of_shares(sealed: Mapping[int, bytes]) -> dict[str, Tensor]:
    """A client's answer to `shares`, by neighbour in ascending order; so they are passed on too."""
    return {f"{_NAME}/shares": to_rows([sealed[each] for each in sorted(sealed)])}


def passed_on(circle: Circle, shared: Mapping[int, Tensors]) -> dict[int, dict[str, Tensor]]:
    """What each of those who shared their secrets is to be sent: what its neighbours sealed for it.

    Args:
        circle: of all clients.
        shared: answers to `shares`, by client.
    """
    rows = {
        sender: dict(zip(circle.neighbours[sender], answer[f"{_NAME}/shares"], strict=True))
        for sender, answer in shared.items()
    }
    return {
        client: of_shares(
            {
                each: to_bytes(rows[each][client])
                for each in circle.neighbours[client]
                if each in rows
            }
        )
        for client in shared
    }


def check_shares(payload: bytes, neighbours: Sequence[int]) -> dict[str, Tensor]:
    """What a client with these neighbours answered to `shares`, as it came.

    Raises:
        MessageError: it has another form.
    """
    shape = (len(neighbours), _SEALED)
    return decode(payload, {f"{_NAME}/shares": TensorSpec(shape, torch.uint8)})


def read_shares(payload: bytes, neighbours: Sequence[int]) -> dict[int, bytes]:
    """What these neighbours shared with a client, sealed.

    Raises:
        MessageError: they are others, or as many as there should not be.
    """
    rows = check_shares(payload, neighbours)[f"{_NAME}/shares"]
    return {each: to_bytes(row) for each, row in zip(neighbours, rows, strict=True)}


def of_clients(clients: Collection[int]) -> dict[str, Tensor]:
    """Who took the last step."""
    return {f"{_NAME}/left": torch.tensor(sorted(clients))}


def read_clients(received: Tensors) -> tuple[int, ...]:
    """Who took the last step, as a client was told.

    Raises:
        MessageError: it was not.
    """
    left = received.get(f"{_NAME}/left")
    if left is None or left.dim() != 1:
        raise MessageError("the call does not say which clients are left of the secure sum")
    return tuple(sorted({int(each) for each in left}))


def without(received: Tensors) -> dict[str, Tensor]:
    """What the method itself sent."""
    return {n: tensor for n, tensor in received.items() if not n.startswith(f"{_NAME}/")}


def of_opening(opening: Opening) -> dict[str, Tensor]:
    """A client's answer to `open`."""
    told = {
        "shares": _bytes(opening.shares),
        "parts": to_rows([opening.parts[each] for each in sorted(opening.parts)]),
        "pads": to_rows([opening.pads[each] for each in sorted(opening.pads)]),
    }
    return prefixed(_NAME, told)


def check_opening(
    payload: bytes, neighbours: Sequence[int], sharers: Collection[int], survivors: Collection[int]
) -> dict[str, Tensor]:
    """What a client with these neighbours answered to `open`, as it came.

    Raises:
        MessageError: it has another form.
    """
    shared, left = set(sharers), set(survivors)
    size = SHARE_BYTES * sum(each in shared for each in neighbours) + _TAG
    row = TensorSpec((sum(each in left for each in neighbours), SHARE_BYTES), torch.uint8)
    told = {"shares": TensorSpec((size,), torch.uint8), "parts": row, "pads": row}
    return decode(payload, {f"{_NAME}/{name}": spec for name, spec in told.items()})


def read_opening(answer: Tensors, neighbours: Sequence[int], survivors: Collection[int]) -> Opening:
    """An answer to `open`, as `check_opening` let it in."""
    told, left = group(_NAME, answer), set(survivors)
    around = [each for each in neighbours if each in left]
    parts, pads = (
        {each: to_bytes(row) for each, row in zip(around, told[name], strict=True)}
        for name in ("parts", "pads")
    )
    return Opening(to_bytes(told["shares"]), parts, pads)


def expected(plain: Expected) -> Expected:
    """What a masked upload looks like whose plain one is like this."""
    masked = fixed_point.expected(plain)
    word = next(iter(masked.values())).dtype
    return {**masked, MEMBERS: TensorSpec(tuple(fixed_point.ones(word).shape), word)}


def to_rows(contents: Sequence[bytes]) -> Tensor:
    """Contents of one length, each a row of bytes."""
    return torch.stack([_bytes(each) for each in contents])


def to_bytes(row: Tensor) -> bytes:
    """What a row of bytes holds."""
    return row.numpy().tobytes()


def _bytes(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
