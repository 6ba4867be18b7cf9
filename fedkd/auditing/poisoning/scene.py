"""What hostile clients know in a round, and how the uploads that they forge are made."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedkd.exchange import likeliest
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Tensors, group, prefixed
from fedkd.specs import TensorSpec

SHARED = ("logits", "probabilities")
"""Fields that answer inputs which all clients are asked about: whole, or as `likeliest` has it."""
OWN = ("record_logits",)
"""Fields that answer a client's own records."""
_LEAST = 1e-6
"""The least probability whose logarithm is taken."""


@dataclass(frozen=True)
class Scene:
    """A round as hostile clients see it.

    Attributes:
        uploads: what all clients that answered would send, by client.
        hostile: who of them is hostile, in ascending order.
        starts: of each hostile client, the state dict that it was sent; empty where there is none.
        expected: of each hostile client, what the door lets in.
        biases: the field with a client's last layer's bias, of hostile clients that send one.
        classes: C, or how many numbers an answer ends in.
        target: the class that is to be called.
    """

    uploads: Mapping[int, Tensors]
    hostile: tuple[int, ...]
    starts: Mapping[int, Tensors]
    expected: Mapping[int, Expected]
    biases: Mapping[int, str]
    classes: int
    target: int

    @property
    def honest(self) -> list[int]:
        """Who is not hostile."""
        return [client for client in self.uploads if client not in self.hostile]

    def model(self, client: int) -> dict[str, Tensor]:
        """The state dict in a client's upload; none where it sends no model."""
        return group("model", self.uploads[client])

    def start(self, client: int) -> Tensors:
        """Where a hostile client's model began; zeros where it was sent none."""
        own = self.model(client)
        sent = self.starts[client]
        return {name: sent.get(name, torch.zeros_like(each)) for name, each in own.items()}

    def alike(self, client: int, others: list[int] | tuple[int, ...]) -> list[dict[str, Tensor]]:
        """The models of those others whose tensors have the names and shapes of a client's."""
        shapes = _shapes(self.model(client))
        found = [self.model(other) for other in others]
        return [model for model in found if _shapes(model) == shapes]

    def answers(self, name: str, client: int) -> Tensor:
        """A field's answers as logits (N, *A), float32."""
        upload = self.uploads[client]
        if name not in upload:
            return likeliest.dense(name, upload, self.classes)
        given = upload[name].float()
        return given.clamp(min=_LEAST).log() if name == "probabilities" else given

    def loudness(self, name: str) -> float:
        """The farthest that a logit of anybody's is from its answer's mean, at least 1."""
        each = (self.answers(name, client) for client in self.uploads)
        return max(1.0, *(float((a - a.mean(dim=-1, keepdim=True)).abs().max()) for a in each))


def answered(fields: Expected | Tensors, among: tuple[str, ...] = SHARED + OWN) -> list[str]:
    """The fields of an upload that are answers."""
    return [name for name in among if name in fields or f"{name}/ids" in fields]


def sends_model(fields: Expected | Tensors) -> bool:
    """Whether an upload holds a model."""
    return any(name.startswith("model/") for name in fields)


def with_answers(
    upload: Tensors, name: str, logits: Tensor, expected: Expected
) -> dict[str, Tensor]:
    """An upload with other answers in a field, in the form that the field has.

    Args:
        upload: a client's.
        name: of the field, one of `answered`.
        logits: (N, *A).
        expected: what the door lets in.
    """
    if (ids := expected.get(f"{name}/ids")) is not None:
        return {**upload, **likeliest.sparse(name, logits, ids.shape[-1])}
    if name == "probabilities":
        return {**upload, name: torch.softmax(logits, dim=-1)}
    if expected[name].high == 0:  # logits that are minus distances: the nearest is at none
        logits = logits - logits.amax(dim=-1, keepdim=True)
    return {**upload, name: logits}


def with_model(upload: Tensors, model: Tensors) -> dict[str, Tensor]:
    """An upload with another model in it."""
    return {**upload, **prefixed("model", model)}


def fitted(upload: Tensors, expected: Expected) -> dict[str, Tensor]:
    """An upload whose numbers the door lets in: each within its range, of its type, and finite."""
    return {name: _within(each, expected[name]) for name, each in upload.items()}


def _within(tensor: Tensor, spec: TensorSpec) -> Tensor:
    if not spec.dtype.is_floating_point:
        return tensor.to(spec.dtype)
    most = torch.finfo(spec.dtype).max
    low, high = max(spec.low, -most), min(spec.high, most)
    return tensor.double().nan_to_num(posinf=high, neginf=low).clamp(low, high).to(spec.dtype)


def _shapes(model: Tensors) -> dict[str, torch.Size]:
    return {name: each.shape for name, each in model.items()}
