"""Span: which part of a text answers a question, by its first and last token."""

from collections.abc import Sequence

from fedkd.config import Frozen
from fedkd.tasks.base import Score, Task
from fedkd.tasks.kind import TaskKind
from fedkd.tasks.likelihoods.tokens import SPANS
from fedkd.tasks.scores.spans import exact_match, overlap_f1
from fedkd.tasks.texts.tagging import probabilities


def _task(
    _options: Frozen, inputs: tuple[int, ...], names: tuple[str, ...], scores: Sequence[Score]
) -> Task:
    return Task(
        name="span",
        inputs=inputs,
        answer=(2, *inputs),
        targets="spans",
        names=names,
        likelihood=SPANS,
        scores=tuple(scores),
        offers=frozenset({"categorical"}),
    )


KIND = TaskKind(
    about="which part of a text answers a question",
    targets="spans",
    scores={"exact-match": exact_match, "overlap-f1": overlap_f1},
    default=("overlap-f1", "exact-match"),
    build=_task,
    shown=probabilities,
    of_texts=True,
)
