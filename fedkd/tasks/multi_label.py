"""Multi-label classification: yes or no, of each of L labels."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.optional import ready_torchvision
from fedkd.tasks.base import Score, Task, kinds_of
from fedkd.tasks.kind import TaskKind
from fedkd.tasks.likelihoods.bernoulli import BERNOULLI
from fedkd.tasks.scores.curves import area_under_roc, average_precision, ranking
from fedkd.tasks.scores.metrics import measured


def _library(name: str, metric: str) -> Callable[[int], Score]:
    """A metric of torchmetrics.classification: the mean over labels, and each label's own."""

    def score(labels: int) -> Score:
        if labels < 2:
            raise ConfigError(
                f"task.name is 'multi-label', and the data has {labels} label: expected two or "
                "more; for one, take 'classification' with two classes"
            )
        ready_torchvision()  # which torchmetrics imports where it is installed
        from torchmetrics import classification

        make = getattr(classification, metric)
        return measured(
            name,
            lambda: make(num_labels=labels, average="macro"),
            torch.sigmoid,
            by_class=lambda: make(num_labels=labels, average="none"),
        )

    return score


def _ranking(name: str, curve: Callable[[Tensor, Tensor], Tensor]) -> Callable[[int], Score]:
    """The mean over labels that some records have and others have not, and each label's own."""
    return lambda labels: ranking(
        name,
        labels,
        log_odds=lambda answers: answers,
        positive=lambda targets: targets == 1,
        curve=curve,
    )


def _task(
    _options: Frozen, inputs: tuple[int, ...], names: tuple[str, ...], scores: Sequence[Score]
) -> Task:
    return Task(
        name="multi-label",
        inputs=inputs,
        answer=(len(names),),
        targets="binary",
        names=names,
        likelihood=BERNOULLI,
        scores=tuple(scores),
        offers=kinds_of(inputs),
    )


KIND = TaskKind(
    about="yes or no, of each of several labels",
    targets="binary",
    scores={
        "macro-f1": _library("macro-f1", "MultilabelF1Score"),
        "auroc": _ranking("auroc", area_under_roc),
        "average-precision": _ranking("average-precision", average_precision),
        "label-accuracy": _library("label-accuracy", "MultilabelAccuracy"),
    },
    default=("macro-f1", "label-accuracy"),
    build=_task,
    shown=torch.sigmoid,
)
