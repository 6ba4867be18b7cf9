"""Classification: one class a record."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedkd.config import Frozen
from fedkd.optional import ready_torchvision
from fedkd.specs import TensorSpec
from fedkd.tasks.base import Ask, Score, Task, kinds_of
from fedkd.tasks.categorical import CATEGORICAL, decide
from fedkd.tasks.kind import TaskKind
from fedkd.tasks.metrics import THRESHOLDS, calibration_error, measured

_OFFERS: tuple[Ask, ...] = ("classes", "categorical")


def _by_class(
    name: str, classes: int, read: Callable[[Tensor, Tensor], dict[str, object]]
) -> Score:
    """A score that is read from the right answers by class, int64 (C,)."""

    def tally(answers: Tensor, targets: Tensor) -> Tensor:
        return torch.bincount(targets[decide(answers) == targets], minlength=classes)

    def totals(targets: Tensor) -> Tensor:
        return torch.bincount(targets, minlength=classes)

    return Score(name, tally, read, TensorSpec((classes,), torch.int64, low=0), totals=totals)


def _shares(right: Tensor, totals: Tensor) -> list[float | None]:
    pairs = zip(right.tolist(), totals.tolist(), strict=True)
    return [hits / total if total else None for hits, total in pairs]


def accuracy(classes: int) -> Score:
    """The share of records whose likeliest class is the true one, over all and by class.

    It is null for a class without records.
    """
    return _by_class(
        "accuracy",
        classes,
        lambda right, totals: {
            "accuracy": int(right.sum()) / int(totals.sum()),
            "by_class": _shares(right, totals),
        },
    )


def balanced_accuracy(classes: int) -> Score:
    """The mean over classes of the share of their records that are right."""

    def read(right: Tensor, totals: Tensor) -> dict[str, object]:
        shares = [share for share in _shares(right, totals) if share is not None]
        return {"balanced_accuracy": sum(shares) / len(shares)}

    return _by_class("balanced-accuracy", classes, read)


def _probabilities(answers: Tensor) -> Tensor:
    return answers.softmax(dim=-1)


def _library(
    name: str, metric: str, *, number: bool = True, **options: object
) -> Callable[[int], Score]:
    """A metric of torchmetrics.classification, which is imported where it is asked for."""

    def score(classes: int) -> Score:
        ready_torchvision()  # which torchmetrics imports where it is installed
        from torchmetrics import classification

        make = getattr(classification, metric)
        return measured(
            name, lambda: make(num_classes=classes, **options), _probabilities, number=number
        )

    return score


def _task(
    _options: Frozen, inputs: tuple[int, ...], names: tuple[str, ...], scores: Sequence[Score]
) -> Task:
    return Task(
        name="classification",
        inputs=inputs,
        answer=(len(names),),
        targets="classes",
        names=names,
        likelihood=CATEGORICAL,
        scores=tuple(scores),
        strata=lambda targets: targets,
        offers=kinds_of(inputs).union(_OFFERS),
    )


KIND = TaskKind(
    about="one class a record",
    targets="classes",
    scores={
        "accuracy": accuracy,
        "balanced-accuracy": balanced_accuracy,
        "macro-f1": _library("macro-f1", "MulticlassF1Score", average="macro"),
        "auroc": _library("auroc", "MulticlassAUROC", average="macro", thresholds=THRESHOLDS),
        "average-precision": _library(
            "average-precision",
            "MulticlassAveragePrecision",
            average="macro",
            thresholds=THRESHOLDS,
        ),
        "calibration-error": calibration_error,
        "confusion": _library("confusion", "MulticlassConfusionMatrix", number=False),
    },
    default=("accuracy",),
    build=_task,
    shown=_probabilities,
)
