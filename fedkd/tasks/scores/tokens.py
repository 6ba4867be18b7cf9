"""Scores of tokens: how many are right, how likely they were, and F1 of their tags."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.specs import TensorSpec
from fedkd.tasks.base import Score
from fedkd.tasks.likelihoods.categorical import IGNORED, decide
from fedkd.tasks.scores.overlap import overlap


def token_accuracy(_classes: int) -> Score:
    """The share of tokens that count whose likeliest class is the true one; counters int64 (1,)."""

    def tally(answers: Tensor, targets: Tensor) -> Tensor:
        return ((decide(answers) == targets) & (targets != IGNORED)).sum().reshape(1)

    def read(right: Tensor, tokens: Tensor) -> dict[str, Any]:
        return {"token_accuracy": int(right) / int(tokens) if int(tokens) else None}

    counts = TensorSpec((1,), torch.int64, low=0)
    return Score("token-accuracy", tally, read, counts, totals=_counted)


_MOST = 100.0
"""Nats that a token may cost: e^-100 is less than a float32 tells from 0."""


def perplexity(_classes: int) -> Score:
    """The exponential of the mean negative log-likelihood of all tokens that count, in nats.

    A token costs 100 nats at most, so that sums are bounded. Models of unlike vocabularies are not
    to be compared by it: a longer token is harder to guess. The counter is nats, float64 (1,).
    """

    def tally(answers: Tensor, targets: Tensor) -> Tensor:
        each = F.cross_entropy(
            answers.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return each.double().nan_to_num(nan=_MOST).clamp(0, _MOST).sum().reshape(1)

    def totals(targets: Tensor) -> Tensor:
        return _MOST * _counted(targets).double()

    def read(nats: Tensor, most: Tensor) -> dict[str, Any]:
        return {"perplexity": math.exp(_MOST * float(nats / most)) if most else None}

    counts = TensorSpec((1,), torch.float64, low=0)
    return Score("perplexity", tally, read, counts, totals, higher=False, share=False)


def _counted(targets: Tensor) -> Tensor:
    """How many tokens count, int64 (1,)."""
    return (targets != IGNORED).sum().reshape(1)


def micro_f1(names: Sequence[str], outside: str) -> Score:
    """F1 of all tokens together that have a tag other than `outside`, and F1 of each tag.

    Counters are the confusion matrix of tokens, int64 (C, C): true by row, answered by column.

    Args:
        names: of the tags, C.
        outside: that of a token which is part of nothing; there may be none of that name.
    """
    inside = torch.tensor([name != outside for name in names]).double()

    def figures(matrix: Tensor) -> dict[str, Any]:
        hits, both = matrix.diagonal(), matrix.sum(dim=0) + matrix.sum(dim=1)
        pairs = zip((2 * hits).tolist(), both.tolist(), strict=True)
        return {
            "micro_f1": _share(float((2 * hits) @ inside), float(both @ inside)),
            "micro_f1_by_class": [_share(above, below) for above, below in pairs],
        }

    return overlap("micro-f1", figures)(len(names))


def _share(above: float, below: float) -> float | None:
    return above / below if below else None
