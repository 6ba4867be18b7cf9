"""Messages: what a client uploads and what the server broadcasts.

A client's upload is made of `Value`s alone, and a value has a provenance: nothing leaves without a
receipt. What a server reads is plain tensors by name. Tensors of one model share a prefix, as in
`model/conv1.weight`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedkd.privacy.events import Event

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Public:
    """Computed without private data."""

    def __str__(self) -> str:
        return "public"


@dataclass(frozen=True, slots=True)
class PostProcessing:
    """Computed from the result of an event, and from private data in no other way."""

    of: Event

    def __str__(self) -> str:
        return f"post-processing of {self.of}"


@dataclass(frozen=True, slots=True)
class Release:
    """Computed from private data directly: an event of its own."""

    event: Event

    def __str__(self) -> str:
        return f"release: {self.event}"


Provenance = Public | PostProcessing | Release


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that may leave the client, and why it may."""

    data: Tensor
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Upload:
    """What one client sends in one round."""

    values: Mapping[str, Value] = field(default_factory=dict)

    def with_values(self, values: Mapping[str, Value]) -> "Upload":
        """The same upload with more values."""
        return Upload({**self.values, **values})


@dataclass(frozen=True, slots=True)
class Broadcast:
    """What the server sends to the clients of the next round.

    `common` goes to every client; `by_model[name]` goes to the clients whose model has that name
    (`str(ModelSpec)`), so that nobody downloads another architecture's weights; `by_client[i]` goes
    to client i alone.
    """

    common: Tensors = field(default_factory=dict)
    by_model: Mapping[str, Tensors] = field(default_factory=dict)
    by_client: Mapping[int, Tensors] = field(default_factory=dict)

    def to(self, model: str, client: int | None = None) -> dict[str, Tensor]:
        """What a client with this model receives; None stands for one that gets nothing alone."""
        for_client = {} if client is None else self.by_client.get(client, {})
        return {**self.common, **self.by_model.get(model, {}), **for_client}


def prefixed(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    """`{"w": t}` as `{"prefix/w": t}`."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def group(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    """The tensors under `prefix/`, by their names without it."""
    start = prefix + "/"
    return {k.removeprefix(start): tensor for k, tensor in tensors.items() if k.startswith(start)}


def values(prefix: str, tensors: Tensors, provenance: Provenance) -> dict[str, Value]:
    """One value a tensor, all with the same provenance, named under `prefix/`."""
    return {k: Value(tensor, provenance) for k, tensor in prefixed(prefix, tensors).items()}
