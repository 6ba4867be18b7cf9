"""What built-in models of texts have in common: what they are built from, and masks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.tasks import Targets, Task, Vocabulary

ONE_ANSWER: frozenset[Targets] = frozenset({"classes", "binary", "numbers", "identities"})
"""Targets of a record as a whole."""
PER_TOKEN: frozenset[Targets] = frozenset({"tags", "spans"})
"""Targets for each token of a record that is there as a whole."""


@dataclass(frozen=True)
class TextModel:
    """A built-in model.

    Attributes:
        Options: of its own.
        build: (task, options) -> the model; the task has one vocabulary.
        answers: of what targets.
    """

    Options: type[Frozen]
    build: Callable[[Task, Any], nn.Module]
    answers: frozenset[Targets]


def words_of(task: Task) -> Vocabulary:
    """The vocabulary of a task of texts."""
    if task.vocabulary is None:
        raise ValueError("Expected a task of texts, of one vocabulary.")
    return task.vocabulary


def read(x: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """Token numbers as int64 (N, L), without what is padding in all records, and what counts.

    Numbers may come as floats, as models are tried out. One token is left at least.

    Returns:
        The numbers, int64 (N, K), K <= L, and bool (N, K), false for padding.
    """
    ids = x.long()
    counted = ids != padding
    if torch.compiler.is_compiling():
        return ids, counted  # a file would keep the length of one batch for all
    length = int(counted.any(dim=0).nonzero().max()) + 1 if counted.any() else 1
    return ids[:, :length], counted[:, :length]


def mean(states: Tensor, counted: Tensor) -> Tensor:
    """The mean of states (N, K, D) over tokens that count; 0 of a record without any."""
    mask = counted.unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


class Heads(nn.Module):
    """States of tokens (N, K, D) as the answer that a task asks for.

    Of a record as a whole a linear layer of the mean state; of `tags` one for each token; of
    `spans` two logits for each token, and places are the last axis, none of them padding.
    """

    def __init__(self, width: int, task: Task) -> None:
        super().__init__()
        self._targets, self._length = task.targets, task.inputs[-1]
        self.classifier = nn.Linear(width, 2 if task.targets == "spans" else task.answer[-1])

    def forward(self, states: Tensor, counted: Tensor) -> Tensor:
        """Answers (N, *A)."""
        if self._targets in ONE_ANSWER:
            answer: Tensor = self.classifier(mean(states, counted))
            return answer
        places = self.classifier(states)
        if self._targets == "spans":
            places = places.masked_fill(~counted.unsqueeze(-1), NOWHERE)
            missing = self._length - places.shape[1]
            return nn.functional.pad(places.transpose(1, 2), (0, missing), value=NOWHERE)
        return whole(places.masked_fill(~counted.unsqueeze(-1), 0.0), self._length)


NOWHERE = -10_000.0
"""The logit of a place where no answer can be; finite, so that no difference of two is NaN."""


def whole(places: Tensor, length: int) -> Tensor:
    """Logits of tokens (N, K, C) with zeros for what was left out as padding: (N, length, C).

    Logits that are all 0 say nothing: of such a place no divergence is counted.
    """
    return nn.functional.pad(places, (0, 0, 0, length - places.shape[1]))
