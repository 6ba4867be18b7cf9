"""Language model: what follows each token of a text."""

from collections.abc import Sequence

from fedkd.config import Frozen
from fedkd.tasks.base import Score, Task
from fedkd.tasks.kind import TaskKind
from fedkd.tasks.likelihoods.tokens import TOKENS
from fedkd.tasks.scores.tokens import perplexity, token_accuracy
from fedkd.tasks.texts.tagging import probabilities


def _task(
    _options: Frozen, inputs: tuple[int, ...], names: tuple[str, ...], scores: Sequence[Score]
) -> Task:
    return Task(
        name="language-model",
        inputs=inputs,
        answer=(*inputs, len(names)),
        targets="next-tokens",
        names=names,
        likelihood=TOKENS,
        scores=tuple(scores),
        offers=frozenset({"categorical"}),
    )


KIND = TaskKind(
    about="what follows each token of a text",
    targets="next-tokens",
    scores={"perplexity": perplexity, "token-accuracy": token_accuracy},
    default=("perplexity", "token-accuracy"),
    build=_task,
    shown=probabilities,
    of_texts=True,
)
