"""Classification: one class a record."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from fedkd.config import Frozen
from fedkd.optional import ready_torchvision
from fedkd.specs import TensorSpec
from fedkd.tasks.base import ACCURACY, Ask, Score, Task, kinds_of, mean_of
from fedkd.tasks.kind import TaskKind
from fedkd.tasks.likelihoods.categorical import CATEGORICAL, decide
from fedkd.tasks.scores.curves import area_under_roc, average_precision, ranking
from fedkd.tasks.scores.metrics import calibration_error, measured

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
        ACCURACY,
        classes,
        lambda right, totals: {
            "accuracy": int(right.sum()) / int(totals.sum()),
            "by_class": _shares(right, totals),
        },
    )


def balanced_accuracy(classes: int) -> Score:
    """The mean over classes of the share of their records that are right."""

    def read(right: Tensor, totals: Tensor) -> dict[str, object]:
        return {"balanced_accuracy": mean_of(_shares(right, totals))}

    return _by_class("balanced-accuracy", classes, read)


def _probabilities(answers: Tensor) -> Tensor:
    return answers.softmax(dim=-1)


def _log_odds(answers: Tensor) -> Tensor:
    """Of each class, from logits (N, C): what tells apart even those that round to certainty."""
    answers = answers.double()
    log_p = answers.log_softmax(dim=-1)
    first = answers.argmax(dim=-1, keepdim=True)
    # 1 - p of the likeliest is a sum over the others, since as a difference it may be 0.
    others = answers.scatter(-1, first, -torch.inf).logsumexp(dim=-1, keepdim=True)
    odds = log_p - torch.log1p(-log_p.exp())
    return odds.scatter(-1, first, answers.gather(-1, first) - others)


def _ranking(name: str, curve: Callable[[Tensor, Tensor], Tensor]) -> Callable[[int], Score]:
    """One class against all others; its figure is the mean over classes."""

    def score(classes: int) -> Score:
        return ranking(
            name,
            classes,
            log_odds=_log_odds,
            positive=lambda targets: targets.unsqueeze(-1) == torch.arange(classes),
            curve=curve,
        )

    return score


def macro_f1(classes: int) -> Score:
    """The mean of F1 over classes that are true or predicted, and F1 by class."""
    ready_torchvision()  # which torchmetrics imports where it is installed
    from torchmetrics.classification import MulticlassF1Score

    def metric(average: Literal["macro", "none"]) -> MulticlassF1Score:
        return MulticlassF1Score(num_classes=classes, average=average)

    return measured(
        "macro-f1", lambda: metric("macro"), _probabilities, by_class=lambda: metric("none")
    )


def confusion(classes: int) -> Score:
    """How many records of each class, by row, are predicted to be of each, by column."""
    ready_torchvision()
    from torchmetrics.classification import MulticlassConfusionMatrix

    return measured(
        "confusion",
        lambda: MulticlassConfusionMatrix(num_classes=classes),
        _probabilities,
        number=False,
    )


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
        offers=kinds_of(inputs).union(_OFFERS),
    )


KIND = TaskKind(
    about="one class a record",
    targets="classes",
    scores={
        ACCURACY: accuracy,
        "balanced-accuracy": balanced_accuracy,
        "macro-f1": macro_f1,
        "auroc": _ranking("auroc", area_under_roc),
        "average-precision": _ranking("average-precision", average_precision),
        "calibration-error": calibration_error,
        "confusion": confusion,
    },
    default=(ACCURACY,),
    build=_task,
    shown=_probabilities,
    strata=lambda targets: targets,
)
