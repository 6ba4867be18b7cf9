"""What is in flight beside an asynchronous run's steps, as its checkpoint has it."""

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fedkd.exchange.messages import Broadcast, Tensors, group, prefixed
from fedkd.federation.asynchronous.in_flight import AtWork, InFlight, KeptUpload


def pack_broadcast(broadcast: Broadcast) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A broadcast as tensors by name, and as JSON for whom its parts are."""
    models = list(broadcast.by_model)
    tensors = prefixed("common", broadcast.common)
    for index, model in enumerate(models):
        tensors |= prefixed(f"model-{index}", broadcast.by_model[model])
    for client, part in broadcast.by_client.items():
        tensors |= prefixed(f"client-{client}", part)
    return tensors, {"models": models, "clients": list(broadcast.by_client)}


def unpack_broadcast(tensors: Tensors, parts: Mapping[str, Any]) -> Broadcast:
    """What `pack_broadcast` made, among tensors of other names.

    Raises:
        KeyError: it did not make this.
    """
    by_model = {m: group(f"model-{index}", tensors) for index, m in enumerate(parts["models"])}
    by_client = {c: group(f"client-{c}", tensors) for c in parts["clients"]}
    return Broadcast(group("common", tensors), by_model, by_client)


def pack(flight: InFlight, newest: int) -> tuple[dict[str, Tensor], str]:
    """All of it as tensors by name and as JSON text.

    The broadcast of round `newest` is left out, since the checkpoint has it anyway.
    """
    tensors: dict[str, Tensor] = {}
    sent = {}
    for round, broadcast in flight.broadcasts.items():
        if round != newest:
            parts, sent[round] = pack_broadcast(broadcast)
            tensors |= prefixed(f"sent-{round}", parts)
    for client, said in flight.kept.items():
        tensors |= prefixed(f"kept-{client}", said.upload)
    about = {
        "now": flight.now,
        "working": {client: [at.round, at.since] for client, at in flight.working.items()},
        "sent": sent,
        "kept": {client: said.round for client, said in flight.kept.items()},
    }
    return tensors, json.dumps(about)


def unpack(tensors: Tensors, text: str, newest: int, broadcast: Broadcast) -> InFlight:
    """What `pack` made, with the newest broadcast, that of the round `newest`.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it did not make this.
    """
    about = json.loads(text)
    working = {int(c): AtWork(int(r), float(since)) for c, (r, since) in about["working"].items()}
    broadcasts = {
        int(r): unpack_broadcast(group(f"sent-{r}", tensors), parts)
        for r, parts in about["sent"].items()
    }
    if any(at.round == newest for at in working.values()):
        broadcasts[newest] = broadcast
    kept = {
        int(c): KeptUpload(int(round), group(f"kept-{c}", tensors))
        for c, round in about["kept"].items()
    }
    return InFlight(float(about["now"]), working, broadcasts, kept)
