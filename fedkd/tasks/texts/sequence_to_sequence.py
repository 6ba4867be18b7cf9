"""Sequence to sequence: another text of a text, such as its translation, token by token."""

from collections.abc import Sequence

from fedkd.config import Frozen
from fedkd.tasks.base import Score, Task
from fedkd.tasks.kind import TaskKind
from fedkd.tasks.likelihoods.tokens import TOKENS
from fedkd.tasks.scores.tokens import perplexity, token_accuracy
from fedkd.tasks.scores.written import bleu, chrf
from fedkd.tasks.texts.tagging import probabilities


def _task(
    _options: Frozen, inputs: tuple[int, ...], names: tuple[str, ...], scores: Sequence[Score]
) -> Task:
    length = (inputs[0] + 1) // 2  # a text, and what was written before, one token shorter
    return Task(
        name="sequence-to-sequence",
        inputs=inputs,
        answer=(length - 1, len(names)),
        targets="tokens",
        names=names,
        likelihood=TOKENS,
        scores=tuple(scores),
        offers=frozenset({"categorical"}),
    )


KIND = TaskKind(
    about="another text of a text, such as its translation",
    targets="tokens",
    scores={
        "perplexity": perplexity,
        "token-accuracy": token_accuracy,
        "bleu": bleu,
        "chrf": chrf,
    },
    default=("perplexity", "token-accuracy"),
    build=_task,
    shown=probabilities,
    of_texts=True,
)
