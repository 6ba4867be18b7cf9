"""Retrieval: a vector of a question and one of its answer, near each other and far from others."""

from collections.abc import Callable, Sequence

from pydantic import Field, PositiveInt

from fedkd.config import Frozen
from fedkd.knowledge.geometry import unit
from fedkd.tasks.base import Score, Task
from fedkd.tasks.kind import TaskKind
from fedkd.tasks.likelihoods.pairs import pairs
from fedkd.tasks.scores.retrieval import SCORES


class RetrievalOptions(Frozen):
    """What `[task]` says of a retrieval."""

    dimensions: PositiveInt = 64
    """D, of a text's vector."""
    temperature: float = Field(default=0.05, gt=0)
    """What cosines are divided by in the likelihood: the lower, the more the hardest count."""
    candidates: int = Field(default=50, ge=2)
    """Among how many answers scores have a question look for its own."""


def _of_default(make: Callable[[int], Score]) -> Callable[[int], Score]:
    """A score as it is unless `[task]` says otherwise."""
    return lambda _answers: make(RetrievalOptions().candidates)


def _task(
    options: RetrievalOptions,
    inputs: tuple[int, ...],
    _answers: tuple[str, ...],
    scores: Sequence[Score],
) -> Task:
    own = [
        SCORES[each.name](options.candidates) if each.name in SCORES else each for each in scores
    ]
    return Task(
        name="retrieval",
        inputs=inputs,
        answer=(2, options.dimensions),
        targets="identities",
        names=tuple(f"dimension {number}" for number in range(options.dimensions)),
        likelihood=pairs(options.temperature),
        scores=tuple(own),
    )


KIND = TaskKind(
    about="which answer belongs to a question, by a vector of each",
    targets="identities",
    scores={name: _of_default(make) for name, make in SCORES.items()},
    default=tuple(SCORES),
    build=_task,
    shown=lambda answers: unit(answers, dim=-1),
    Options=RetrievalOptions,
    of_texts=True,
)
