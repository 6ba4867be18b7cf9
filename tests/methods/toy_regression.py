"""A task of one's own: two numbers a record, with errors of unit variance."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedkd.config import Frozen
from fedkd.data.types import Samples
from fedkd.specs import TensorSpec
from fedkd.tasks import Likelihood, Score, Task, TaskKind

NUMBERS = 2


def nll(answers: Tensor, targets: Tensor) -> Tensor:
    return (answers - targets).square().flatten(1).mean(dim=1) / 2


def mean_nll(answers: Tensor, targets: Tensor) -> Tensor:
    return nll(answers, targets).mean()


def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    return nll(student, teacher)


LIKELIHOOD = Likelihood(nll, mean_nll, divergence, decide=lambda answers: answers)


def error(_numbers: int) -> Score:
    """The mean squared error."""
    return Score(
        "error",
        tally=lambda answers, targets: torch.stack(
            [2 * nll(answers, targets).double().sum(), torch.tensor(len(targets)).double()]
        ),
        read=lambda counters, _totals: {"error": float(counters[0] / counters[1])},
        counts=TensorSpec((2,), torch.float64, low=0),
        higher=False,
        share=False,
    )


def build(
    _options: Frozen, inputs: tuple[int, ...], names: tuple[str, ...], scores: Sequence[Score]
) -> Task:
    return Task(
        name="toy-regression",
        inputs=inputs,
        answer=(len(names),),
        targets="numbers",
        names=names,
        likelihood=LIKELIHOOD,
        scores=tuple(scores),
        offers=frozenset({"features"}),
    )


KIND = TaskKind(
    about="two numbers a record",
    targets="numbers",
    scores={"error": error},
    default=("error",),
    build=build,
    shown=lambda answers: answers,
)


def samples(size: int, shape: tuple[int, ...], seed: int) -> Samples:
    """Numbers that are linear in what is seen."""
    x = torch.rand(size, *shape, generator=torch.Generator().manual_seed(seed))
    draws = torch.Generator().manual_seed(7)
    mixing = torch.randn(x[0].numel(), NUMBERS, generator=draws)
    return Samples(x, x.flatten(1) @ mixing)
