"""Tagging: a class for each word of a text, such as its part of speech."""

from collections.abc import Callable, Sequence

from torch import Tensor

from fedkd.config import Frozen
from fedkd.tasks.base import Score, Task
from fedkd.tasks.kind import TaskKind
from fedkd.tasks.likelihoods.tokens import TOKENS
from fedkd.tasks.scores.entities import entity_f1
from fedkd.tasks.scores.tokens import micro_f1, token_accuracy


class TaggingOptions(Frozen):
    """What `[task]` says of a tagging."""

    outside: str = "O"
    """The tag of a word that is part of nothing, which F1 leaves out."""


_OF_NAMES: dict[str, Callable[[Sequence[str], str], Score]] = {
    "micro-f1": micro_f1,
    "entity-f1": entity_f1,
}
"""Scores that depend on what tags are called."""


def _task(
    options: TaggingOptions,
    inputs: tuple[int, ...],
    names: tuple[str, ...],
    scores: Sequence[Score],
) -> Task:
    own = [
        _OF_NAMES[each.name](names, options.outside) if each.name in _OF_NAMES else each
        for each in scores
    ]
    return Task(
        name="tagging",
        inputs=inputs,
        answer=(*inputs, len(names)),
        targets="tags",
        names=names,
        likelihood=TOKENS,
        scores=tuple(own),
        offers=frozenset({"categorical"}),
    )


def _before_names(name: str) -> Callable[[int], Score]:
    """A score as it is before it is known what tags are called."""
    return lambda tags: _OF_NAMES[name]([str(tag) for tag in range(tags)], "O")


def probabilities(answers: Tensor) -> Tensor:
    """Logits (N, L, C) as a library's metric is shown them: (N, C, L)."""
    return answers.softmax(dim=-1).movedim(-1, 1)


KIND = TaskKind(
    about="a class for each word of a text",
    targets="tags",
    scores={"token-accuracy": token_accuracy, **{name: _before_names(name) for name in _OF_NAMES}},
    default=("token-accuracy", "micro-f1"),
    build=_task,
    shown=probabilities,
    Options=TaggingOptions,
    of_texts=True,
)
