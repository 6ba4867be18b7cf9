"""Scores of how well confidence ranks records, from counters that parties may add.

Exact ones need every record's confidence. Here records are counted in bins of confidence, and those
of one bin count as tied, which makes no curve better than it is. torchmetrics has binned curves
too, but they give a class without records 0, and lose what lies above their last threshold.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedkd.specs import TensorSpec
from fedkd.tasks.base import Score, mean_of

BINS = 512
"""Of confidence; finest where it is near one half, with some left for those that are all but sure.
"""
_HALF_WAY = 4.0
"""Half of the bins hold log-odds between minus this and this: probabilities from 0.018 to 0.982."""


def ranking(
    name: str,
    outputs: int,
    *,
    log_odds: Callable[[Tensor], Tensor],
    positive: Callable[[Tensor], Tensor],
    curve: Callable[[Tensor, Tensor], Tensor],
) -> Score:
    """A score by class or label that is read from histograms, int64 (2, outputs, BINS).

    The first half counts what is not of a class, the second what is. Its figure is the mean over
    those classes for which it is defined; `by_class` has each, null where it is not.

    Args:
        name: of the score.
        outputs: how many classes or labels.
        log_odds: answers -> (M, outputs), how sure they are of each.
        positive: targets -> bool (M, outputs), what is true.
        curve: (negatives, positives), each float64 (outputs, BINS) from the least sure bin up, ->
            (outputs,), NaN where it is not defined.
    """

    def tally(answers: Tensor, targets: Tensor) -> Tensor:
        places = bin_of(log_odds(answers))
        true = positive(targets).long()
        columns = torch.arange(outputs).expand_as(true)
        bins = (true * outputs + columns) * BINS + places
        counts = torch.bincount(bins.flatten(), minlength=2 * outputs * BINS)
        return counts.reshape(2, outputs, BINS)

    def totals(targets: Tensor) -> Tensor:
        true = positive(targets)
        return torch.stack([(~true).sum(dim=0), true.sum(dim=0)]).unsqueeze(-1)

    score = Score(
        name,
        tally,
        lambda counters, _totals: _read(score, curve(*counters.double())),
        TensorSpec((2, outputs, BINS), torch.int64, low=0),
        totals=totals,
    )
    return score


def bin_of(log_odds: Tensor) -> Tensor:
    """The bin of each confidence, from 0 to below `BINS`: int64, of the same shape."""
    odds = log_odds.double().nan_to_num(nan=0.0).clamp(-1e6, 1e6)
    places = (odds / (_HALF_WAY + odds.abs()) + 1) * (BINS / 2)
    return places.long().clamp(0, BINS - 1)


def _read(score: Score, values: Tensor) -> dict[str, Any]:
    by_class = [None if math.isnan(value) else value for value in values.tolist()]
    return {score.figure: mean_of(by_class), score.by_class: by_class}


def area_under_roc(negatives: Tensor, positives: Tensor) -> Tensor:
    """The chance that one that is ranks above one that is not, ties counting one half."""
    below = negatives.cumsum(dim=1) - negatives / 2
    return (positives * below).sum(dim=1) / (positives.sum(dim=1) * negatives.sum(dim=1))


def average_precision(negatives: Tensor, positives: Tensor) -> Tensor:
    """Precision at each bin and those above it, a mean weighed by the positives of the bin."""
    above = [each.flip(1).cumsum(dim=1) for each in (negatives, positives)]
    precision = above[1] / (above[0] + above[1]).clamp(min=1)
    return (positives.flip(1) * precision).sum(dim=1) / positives.sum(dim=1)
