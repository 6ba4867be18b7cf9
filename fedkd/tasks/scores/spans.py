"""Scores of spans: a record's first and last token, decided and true."""

from typing import Any

import torch
from torch import Tensor

from fedkd.specs import TensorSpec
from fedkd.tasks.base import Score
from fedkd.tasks.likelihoods.categorical import IGNORED
from fedkd.tasks.likelihoods.tokens import decide_spans


def exact_match(_places: int) -> Score:
    """The share of records whose decided span is the true one; counters int64 (1,).

    Records whose answer was cut away do not count.
    """

    def tally(answers: Tensor, targets: Tensor) -> Tensor:
        decided, true = _counted(answers, targets)
        return (decided == true).all(dim=1).sum().reshape(1)

    def read(right: Tensor, records: Tensor) -> dict[str, Any]:
        return {"exact_match": int(right) / int(records) if int(records) else None}

    counts = TensorSpec((1,), torch.int64, low=0)
    return Score("exact-match", tally, read, counts, totals=_records)


def overlap_f1(_places: int) -> Score:
    """The mean over records of F1 of the tokens that the decided and the true span have in common.

    As SQuAD's (Rajpurkar et al. 2016, arXiv:1606.05250), but of a tokeniser's tokens by their
    places, not of words by how they are written. The counter is a sum, float64 (1,).
    """

    def tally(answers: Tensor, targets: Tensor) -> Tensor:
        decided, true = _counted(answers, targets)
        first = torch.maximum(decided[:, 0], true[:, 0])
        last = torch.minimum(decided[:, 1], true[:, 1])
        common = (last - first + 1).clamp(min=0)
        both = _lengths(decided) + _lengths(true)
        return (2 * common.double() / both).sum().reshape(1)

    def totals(targets: Tensor) -> Tensor:
        return _records(targets) * (1 + 1e-9)  # sums of shares may round above their number

    def read(total: Tensor, records: Tensor) -> dict[str, Any]:
        count = round(float(records))
        return {"overlap_f1": min(1.0, float(total) / count) if count else None}

    return Score("overlap-f1", tally, read, TensorSpec((1,), torch.float64, low=0), totals)


def _counted(answers: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Of records whose span is known the decided and the true ones, (M, 2) each."""
    known = (targets != IGNORED).all(dim=1)
    return decide_spans(answers[known]), targets[known]


def _records(targets: Tensor) -> Tensor:
    """How many records have a span, int64 (1,)."""
    return (targets != IGNORED).all(dim=1).sum().reshape(1)


def _lengths(spans: Tensor) -> Tensor:
    return spans[:, 1] - spans[:, 0] + 1
