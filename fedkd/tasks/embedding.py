"""Embedding: a vector a record, near those of the same identity and far from others.

Deep metric learning, as for face recognition. Who is tested need not have been among those whom a
model learned from.
"""

from collections.abc import Callable, Sequence

from pydantic import Field, PositiveInt

from fedkd.config import Frozen
from fedkd.knowledge.geometry import unit
from fedkd.tasks.base import Score, Task, kinds_of
from fedkd.tasks.kind import TaskKind
from fedkd.tasks.likelihoods.contrastive import contrastive
from fedkd.tasks.scores.verification import SCORES


class EmbeddingOptions(Frozen):
    """What `[task]` says of an embedding."""

    dimensions: PositiveInt = 64
    """D, of a record's vector."""
    temperature: float = Field(default=0.1, gt=0)
    """What cosines are divided by in the likelihood: the lower, the more the hardest count."""


def _task(
    options: EmbeddingOptions,
    inputs: tuple[int, ...],
    _identities: tuple[str, ...],
    scores: Sequence[Score],
) -> Task:
    return Task(
        name="embedding",
        inputs=inputs,
        answer=(options.dimensions,),
        targets="identities",
        names=tuple(f"dimension {number}" for number in range(options.dimensions)),
        likelihood=contrastive(options.temperature),
        scores=tuple(scores),
        offers=kinds_of(inputs),
    )


def _whoever(make: Callable[[], Score]) -> Callable[[int], Score]:
    """A score that does not depend on how many identities there are."""
    return lambda _identities: make()


KIND = TaskKind(
    about="a vector, near those of the same identity; people of the test set may be new",
    targets="identities",
    scores={name: _whoever(make) for name, make in SCORES.items()},
    default=tuple(SCORES),
    build=_task,
    shown=lambda answers: unit(answers, dim=-1),
    strata=lambda targets: targets,
    Options=EmbeddingOptions,
)
