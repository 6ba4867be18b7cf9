"""A checkpoint's file: what the server goes on from, and the names of all else that a resume reads.

It is safetensors, and its metadata holds a SHA-256 of all the rest of it.
"""

import hashlib
import json
import struct
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load

from fedkd import config
from fedkd.config import Experiment
from fedkd.errors import FedkdError
from fedkd.exchange.codec import encode
from fedkd.exchange.messages import group, prefixed
from fedkd.federation.server import Checkpoint
from fedkd.federation.store.state_store import StoreName
from fedkd.federation.wire import LedgerHead
from fedkd.files import storing
from fedkd.runs import in_flight, manifest
from fedkd.runs.manifest import Manifest, cannot_resume

_SEAL = "sha256"
_IN_FLIGHT = "in_flight"
_STATES = "states"


@dataclass(frozen=True)
class Kept:
    """A checkpoint as it is kept.

    Attributes:
        checkpoint: the server's own state.
        experiment: what is run; None in a checkpoint that an earlier fedkd wrote.
        files: what else a resume reads; None in a checkpoint that an earlier fedkd wrote.
        states: what the store of the clients' states holds; None where there is none.
    """

    checkpoint: Checkpoint
    experiment: Experiment | None = None
    files: Manifest | None = field(default_factory=dict)
    states: StoreName | None = None


def write(kept: Kept) -> bytes:
    """The file's content."""
    checkpoint = kept.checkpoint
    sent, parts = in_flight.pack_broadcast(checkpoint.broadcast)
    tensors = {
        **prefixed("student", checkpoint.student),
        **prefixed("state", checkpoint.state),
        **sent,
    }
    server = checkpoint.server_head
    metadata = {
        "round": str(checkpoint.round),
        **{whose: json.dumps(names) for whose, names in parts.items()},
        "standings": json.dumps({c: asdict(at) for c, at in checkpoint.ledger_heads.items()}),
        "own": json.dumps(None if server is None else asdict(server)),
        "experiment": "" if kept.experiment is None else kept.experiment.to_json(),
        "files": json.dumps(manifest.to_json(kept.files or {})),
    }
    if kept.states is not None:
        metadata[_STATES] = json.dumps(asdict(kept.states))
    if checkpoint.in_flight is not None:
        flying, metadata[_IN_FLIGHT] = in_flight.pack(checkpoint.in_flight, checkpoint.round + 1)
        tensors |= flying
    return _sealed(encode(tensors, metadata))


def read(file: Path, folder: Path) -> Kept:
    """Read a run folder's checkpoint.

    Raises:
        RunFolderError: it is damaged.
    """
    with storing(file):
        content = file.read_bytes()
    try:
        return _parse(content)
    except (
        AttributeError, FedkdError, KeyError, RecursionError, SafetensorError, TypeError,
        ValueError, struct.error,
    ) as error:  # fmt: skip
        name = file.relative_to(folder).as_posix()
        raise cannot_resume(folder, f"its {name} is damaged") from error


def _parse(content: bytes) -> Kept:
    header, _ = _split_header(content)
    metadata = header["__metadata__"]
    old = not {_SEAL, "files"} & metadata.keys()
    if not old and metadata[_SEAL] != _seal(content):
        raise ValueError("Expected another SHA-256.")
    tensors = load(content)
    round = int(metadata["round"])
    parts = {whose: json.loads(metadata[whose]) for whose in ("models", "clients")}
    broadcast, flying = in_flight.unpack_broadcast(tensors, parts), None
    if _IN_FLIGHT in metadata:
        flying = in_flight.unpack(tensors, metadata[_IN_FLIGHT], round + 1, broadcast)
    server = json.loads(metadata.get("own", "null"))
    checkpoint = Checkpoint(
        round=round,
        student=group("student", tensors),
        state=group("state", tensors),
        broadcast=broadcast,
        ledger_heads={
            int(client): LedgerHead(**at)
            for client, at in json.loads(metadata["standings"]).items()
        },
        server_head=None if server is None else LedgerHead(**server),
        in_flight=flying,
    )
    if old:
        return Kept(checkpoint, None, None)
    experiment = metadata["experiment"]
    return Kept(
        checkpoint,
        config.parse_json(experiment) if experiment else None,
        manifest.from_json(json.loads(metadata["files"])),
        StoreName(**json.loads(metadata[_STATES])) if _STATES in metadata else None,
    )


def _split_header(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Safetensors bytes as their header and the tensors' bytes."""
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length]), memoryview(content)[8 + length :]


def _seal(content: bytes) -> str:
    """The SHA-256 of safetensors bytes, whatever their metadata says that it is."""
    header, body = _split_header(content)
    header["__metadata__"].pop(_SEAL, None)
    return hashlib.sha256(
        manifest.digest(header).encode() + hashlib.sha256(body).digest()
    ).hexdigest()


def _sealed(content: bytes) -> bytes:
    """The same tensors and metadata with the seal among the metadata."""
    header, body = _split_header(content)
    header["__metadata__"][_SEAL] = _seal(content)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned
    return struct.pack("<Q", len(text)) + text + body
