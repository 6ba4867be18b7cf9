"""A secure sum in memory, by the clients' and the server's own code, of more than must answer."""

from hashlib import sha256

import torch

from fedkd.auditing.verdicts import Check, checked
from fedkd.clock import Clock
from fedkd.data.types import Samples
from fedkd.errors import FederationError
from fedkd.exchange.codec import encode
from fedkd.exchange.masking.fixed_point import fixed, floating
from fedkd.exchange.masking.unmasking import unmask
from fedkd.exchange.messages import Tensors
from fedkd.federation.prepare import PreparedExperiment
from fedkd.federation.secure import messages
from fedkd.federation.secure.steps import Masking, SumMember, make_keys, open_shares, share
from fedkd.federation.state import MemoryState
from fedkd.federation.summing import Summing
from fedkd.jobs.audit.unwritten import Unwritten
from fedkd.methods.core.base import ClientContext

_WHAT = "parts under masks"
_ALIKE = 0.01
"""Of a masked part's numbers may be what they were; one in 65,536 is by chance."""


def check_masks(prepared: PreparedExperiment, told: Tensors, samples: Samples) -> Check:
    """Parts are hidden one by one, and what the server reads is their sum to the bit.

    Args:
        prepared: under secure aggregation.
        told: what clients receive in the first round.
        samples: what each of them holds.
    """
    try:
        parts, sent, total = _summed(prepared, told, samples)
    except FederationError as error:
        return Check(_WHAT, "VIOLATION", str(error))
    numbers = [fixed(each, parties=len(parts)) for each in parts]
    # Whole numbers wrap around as those under masks do.
    plain = {
        name: torch.stack([each[name] for each in numbers]).sum(dim=0, dtype=first.dtype)
        for name, first in numbers[0].items()
    }
    exact = all(torch.equal(total[name], each) for name, each in floating(plain).items())
    alike = max(
        float((masked[name] == each).double().mean())
        for masked, own in zip(sent, numbers, strict=True)
        for name, each in own.items()
    )
    found = (
        f"the server reads {'the' if exact else 'another'} sum of {len(parts)} clients' parts; of "
        f"one part {alike:.2%} of the numbers are sent as they are (0% expected)"
    )
    return checked(_WHAT, exact and alike < _ALIKE, found)


def _summed(
    prepared: PreparedExperiment, told: Tensors, samples: Samples
) -> tuple[list[Tensors], list[Tensors], Tensors]:
    """Clients' parts, what they send of them, and what the server reads of all."""
    setting = prepared.setting
    cohort = setting.cohort(1)
    clients = cohort[: setting.quorum(len(cohort)) + 1]
    members = {client: SumMember(setting, MemoryState(), client, 1) for client in clients}
    roster = messages.of_roster({client: make_keys(each) for client, each in members.items()})
    shared = {client: share(each, roster) for client, each in members.items()}
    pairs = {client: each.pairs for client, each in messages.read_roster(roster).items()}
    circle = messages.circle(pairs, setting, 1)
    beside = messages.passed_on(circle, shared)
    said = encode({**told, **messages.of_clients(clients)})
    summing = Summing(prepared, clients[0])
    parts: list[Tensors] = []
    sent: list[Tensors] = []
    for client, member in members.items():
        masking = Masking.of(member, said, encode(beside[client]))
        clock = Clock(lambda *_: None)
        # One client makes all parts, whose features are found once.
        ctx = ClientContext(setting, 1, clients[0], samples, {}, clock, allowance=Unwritten())
        upload = prepared.method.client(ctx, dict(told))
        parts.append({name: value.data for name, value in upload.values.items()})
        sent.append({name: value.data for name, value in masking(upload).values.items()})
        summing.take(1, client, encode(sent[-1]))
    answered = messages.of_clients(clients)
    openings = {
        client: messages.read_opening(
            open_shares(each, answered), circle.neighbours[client], clients
        )
        for client, each in members.items()
    }
    unmask(summing.words, circle, clients, clients, openings, sha256(said).digest())
    return parts, sent, summing.total(len(clients))
