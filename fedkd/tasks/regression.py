"""Regression: D numbers a record."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import field_validator
from torch import Tensor

from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.optional import ready_torchvision
from fedkd.specs import TensorSpec
from fedkd.tasks.base import Score, Task, kinds_of, mean_of
from fedkd.tasks.kind import TaskKind
from fedkd.tasks.likelihoods.gaussian import gaussian
from fedkd.tasks.scores.metrics import measured

_AS_THEY_ARE = (-1.0, 1.0)
_ROUNDING = 1e-12
"""Of a sum of squares: a number that varies by no more is constant."""


class RegressionOptions(Frozen):
    """What `[task]` says of a regression."""

    limits: tuple[tuple[float, float], ...] = ()
    """What becomes -1 and 1 of each number in training, a public statement: one `[low, high]` for
    all numbers, or one for each. Numbers are learned as they are unless given."""

    @field_validator("limits", mode="before")
    @classmethod
    def _one_for_all(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        pairs = value if any(isinstance(each, list) for each in value) else [value]
        return tuple(tuple(each) if isinstance(each, list) else each for each in pairs)


def _limits(options: RegressionOptions, names: Sequence[str]) -> list[tuple[float, float]]:
    """The limits of each number."""
    limits = options.limits or (_AS_THEY_ARE,)
    if len(limits) not in (1, len(names)):
        raise ConfigError(
            f"task.limits has {len(limits)} pairs, and the data {len(names)} numbers "
            f"({', '.join(names)}): expected one [low, high] for all, or one for each"
        )
    for low, high in limits:
        least, most = torch.tensor([low, high]).tolist()  # as float32, which numbers are
        if not least < most:
            raise ConfigError(
                f"task.limits has [{low:g}, {high:g}]: expected the lower limit first, and another "
                "one above it, as float32"
            )
    return list(limits) * (len(names) // len(limits))


def _by_number(single: Callable[[], Score]) -> Callable[[int], Score]:
    """A score as the mean over the numbers of which it is defined, and the figure of each.

    Args:
        single: makes the score of one number, whose answers and targets are float64 (N,).
    """

    def score(numbers: int) -> Score:
        one = single()

        def tally(answers: Tensor, targets: Tensor) -> Tensor:
            columns = zip(answers.double().T, targets.double().T, strict=True)
            return torch.stack([one.tally(answer, target) for answer, target in columns])

        def read(counters: Tensor, totals: Tensor) -> dict[str, Any]:
            each = [one.read(own, totals)[one.figure] for own in counters]
            return {one.figure: mean_of(each), one.by_class: each}

        counts = replace(one.counts, shape=(numbers, *one.counts.shape))
        return replace(one, tally=tally, read=read, counts=counts)

    return score


def _error(name: str, metric: str, **options: object) -> Callable[[int], Score]:
    """A metric of torchmetrics.regression, which is imported where it is asked for."""

    def single() -> Score:
        ready_torchvision()  # which torchmetrics imports where it is installed
        from torchmetrics import regression

        make = getattr(regression, metric)
        score = measured(
            name,
            lambda: make(**options).set_dtype(torch.float64),
            lambda answers: answers,
            higher=False,
            share=False,
        )
        return replace(score, counts=replace(score.counts, low=0))  # errors, and how many they are

    return _by_number(single)


def _r2() -> Score:
    """The share of a number's variance that answers explain: 1 at most, below 0 if the mean does.

    Counters are ours: torchmetrics takes a sum of squares below 1e-4 for none, and so a number in
    small units for one that is constant. They are records, and the sums of targets, of their
    squares and of squared errors.
    """

    def tally(answers: Tensor, targets: Tensor) -> Tensor:
        errors = (answers - targets).square().sum()
        records = errors.new_tensor(len(targets))
        return torch.stack([records, targets.sum(), targets.square().sum(), errors])

    def read(counters: Tensor, _totals: Tensor) -> dict[str, float | None]:
        records, total, squares, errors = counters.tolist()
        if records < 2:
            return {"r2": None}
        variation = squares - total * total / records
        if not variation > _ROUNDING * squares:
            return {"r2": None}
        figure = 1 - errors / variation
        return {"r2": figure if math.isfinite(figure) else None}

    return Score("r2", tally, read, TensorSpec((4,), torch.float64), share=False)


def _task(
    options: RegressionOptions,
    inputs: tuple[int, ...],
    names: tuple[str, ...],
    scores: Sequence[Score],
) -> Task:
    likelihood = gaussian(_limits(options, names))

    def in_own_units(score: Score) -> Score:
        return replace(
            score, tally=lambda answers, targets: score.tally(likelihood.decide(answers), targets)
        )

    return Task(
        name="regression",
        inputs=inputs,
        answer=(len(names),),
        targets="numbers",
        names=names,
        likelihood=likelihood,
        scores=tuple(map(in_own_units, scores)),
        offers=kinds_of(inputs),
    )


KIND = TaskKind(
    about="numbers",
    targets="numbers",
    scores={
        "rmse": _error("rmse", "MeanSquaredError", squared=False),
        "mae": _error("mae", "MeanAbsoluteError"),
        "r2": _by_number(_r2),
    },
    default=("rmse", "r2"),
    build=_task,
    shown=lambda answers: answers,
    Options=RegressionOptions,
)
