"""Scores of masks, read from how many pixels of each class are taken for which."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedkd.specs import TensorSpec
from fedkd.tasks.base import Score, mean_of
from fedkd.tasks.likelihoods.categorical import IGNORED, decide


def _counted(answers: Tensor, targets: Tensor, classes: int) -> Tensor:
    """The confusion matrix (C, C) of pixels that count: true by row, answered by column."""
    counts = targets != IGNORED
    pairs = targets[counts] * classes + decide(answers)[counts]
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def _pixels(targets: Tensor, classes: int) -> Tensor:
    """How many pixels of each class there are, (C, 1): the most that each of its row can be."""
    return torch.bincount(targets[targets != IGNORED], minlength=classes)[:, None]


def overlap(
    name: str, figures: Callable[[Tensor], dict[str, Any]], *, number: bool = True
) -> Callable[[int], Score]:
    """A score that is read from a confusion matrix int64 (C, C), which parties may add.

    Args:
        name: of the score.
        figures: the matrix, float64, to figures by name.
        number: see `Score`.
    """

    def score(classes: int) -> Score:
        return Score(
            name,
            tally=lambda answers, targets: _counted(answers, targets, classes),
            read=lambda counters, _totals: figures(counters.double()),
            counts=TensorSpec((classes, classes), torch.int64, low=0),
            totals=lambda targets: _pixels(targets, classes),
            number=number,
        )

    return score


def _by_class(above: Tensor, below: Tensor) -> list[float | None]:
    """Shares of classes; null for a class that is neither true nor answered anywhere."""
    pairs = zip(above.tolist(), below.tolist(), strict=True)
    return [part / whole if whole else None for part, whole in pairs]


def _iou(matrix: Tensor) -> list[float | None]:
    """Intersection over union by class."""
    hits = matrix.diagonal()
    return _by_class(hits, matrix.sum(dim=0) + matrix.sum(dim=1) - hits)


def _dice(matrix: Tensor) -> list[float | None]:
    """Twice the intersection over the sum of both, by class; F1 of pixels."""
    return _by_class(2 * matrix.diagonal(), matrix.sum(dim=0) + matrix.sum(dim=1))


def _mean(name: str, by_class: Callable[[Tensor], list[float | None]]) -> Callable[[int], Score]:
    def figures(matrix: Tensor) -> dict[str, Any]:
        shares = by_class(matrix)
        return {name: mean_of(shares), f"{name}_by_class": shares}

    return overlap(name, figures)


def _accuracy(matrix: Tensor) -> dict[str, Any]:
    pixels = matrix.sum().item()
    return {"pixel_accuracy": matrix.diagonal().sum().item() / pixels if pixels else None}


miou = _mean("miou", _iou)
"""The mean over classes of intersection over union, of all pixels together, and of each class.

Everingham et al. 2010, IJCV 88(2). Null for a class that no pixel has and none is taken for.
"""
dice = _mean("dice", _dice)
"""The mean over classes of the Dice coefficient (Dice 1945), as `miou`."""
pixel_accuracy = overlap("pixel-accuracy", _accuracy)
"""The share of pixels whose likeliest class is the true one."""
confusion = overlap("confusion", lambda matrix: {"confusion": matrix.long().tolist()}, number=False)
"""How many pixels of each class, by row, are taken for each, by column."""
