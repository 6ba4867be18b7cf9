"""Recommendation: which items a user takes next, out of all that the user has not seen."""

from collections.abc import Sequence

from torch import Tensor

from fedkd.config import Frozen
from fedkd.tasks.base import Score, Task, kinds_of
from fedkd.tasks.kind import TaskKind
from fedkd.tasks.likelihoods.multinomial import MULTINOMIAL
from fedkd.tasks.scores import top_k

_CUTOFFS = (1, 5, 10, 20, 50, 100)
_FIGURES = {"ndcg": top_k.ndcg, "hr": top_k.hit_rate, "recall": top_k.recall}


def _probabilities(answers: Tensor) -> Tensor:
    return answers.softmax(dim=-1)


def _task(
    _options: Frozen, inputs: tuple[int, ...], names: tuple[str, ...], scores: Sequence[Score]
) -> Task:
    return Task(
        name="recommendation",
        inputs=inputs,
        answer=(len(names),),
        targets="items",
        names=names,
        likelihood=MULTINOMIAL,
        scores=tuple(scores),
        offers=kinds_of(inputs) | {"items"},
    )


KIND = TaskKind(
    about="which items a user takes next",
    targets="items",
    scores={
        f"{name}@{k}": top_k.at(k, name, per_user)
        for name, per_user in _FIGURES.items()
        for k in _CUTOFFS
    },
    default=("ndcg@10", "hr@10", "recall@10"),
    build=_task,
    shown=_probabilities,
)
