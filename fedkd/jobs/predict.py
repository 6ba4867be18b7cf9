"""What a run's student says of texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedkd.data.texts.tokenizer import first_tokens, padded
from fedkd.errors import UsageError
from fedkd.models import call
from fedkd.runs import student
from fedkd.tasks import Targets, Task

Text = str | tuple[str, str]
"""A text, or a pair such as a question and its context."""


@dataclass(frozen=True)
class Prediction:
    """What a student says of one text.

    Attributes:
        text: as it was asked.
        answer: a class, labels, numbers, tagged words, or a part of the text.
        scores: probabilities by class or label, numbers by name; none of other answers.
    """

    text: Text
    answer: str
    scores: Mapping[str, float]


def predict(run: Path, texts: Sequence[Text], *, cut: bool = False) -> list[Prediction]:
    """Ask a finished run's student.

    Args:
        run: a finished run's folder.
        texts: at least one; all of them pairs, or none.
        cut: whether a text that is longer than those that the student learned from is cut.

    Raises:
        UsageError: the student takes no texts, or pairs of them and this is none, its answer is
            none that can be said, or a text is too long.
        RunFolderError: it is no finished run.
    """
    finished = student.load(run)
    task, tokenizer = finished.task, finished.tokenizer
    if tokenizer is None:
        raise UsageError(
            f"run folder {str(run)!r} has a student of records of shape {finished.shape}, no "
            "texts: write it for other programs by 'fedkd export'"
        )
    if task.targets not in _SAID:
        raise UsageError(
            f"task {task.name!r} answers what cannot be said in a line: 'fedkd predict' is for "
            f"targets that are {', '.join(_SAID)}"
        )
    columns, given = finished.columns, {1 if isinstance(text, str) else 2 for text in texts}
    if given != {len(columns)}:
        raise UsageError(
            f"the student learned from {' and '.join(map(repr, columns))}: "
            + ("leave out --second" if len(columns) == 1 else "name --second once for each --text")
        )
    words = task.targets == "tags"
    asked: Sequence[Any] = [str(text).split() for text in texts] if words else texts
    encodings = tokenizer.encode(asked, length=task.inputs[-1], is_pretokenized=words)
    for text, encoding in zip(texts, encodings, strict=True):
        if encoding.overflowing and not cut:
            raise UsageError(
                f"the text {str(text)[:40]!r}... has more tokens than the {task.inputs[-1]} that "
                "the student takes: shorten it, or allow it to be cut, --cut"
            )
    ids = [each.ids for each in encodings]
    x = padded(ids, task.inputs[-1], tokenizer.vocabulary.padding)
    with torch.no_grad():
        answers = call.answer(finished.model, x)
    say = _SAID[task.targets]
    return [
        say(task, text, encoding, answer)
        for text, encoding, answer in zip(texts, encodings, answers, strict=True)
    ]


def _class(task: Task, text: Text, _encoding: Any, answer: Tensor) -> Prediction:
    scores = dict(zip(task.names, answer.softmax(dim=-1).tolist(), strict=True))
    return Prediction(text, max(scores, key=lambda name: scores[name]), scores)


def _labels(task: Task, text: Text, _encoding: Any, answer: Tensor) -> Prediction:
    scores = dict(zip(task.names, answer.sigmoid().tolist(), strict=True))
    found = [name for name, share in scores.items() if share > 0.5]
    return Prediction(text, ", ".join(found) or "none", scores)


def _numbers(task: Task, text: Text, _encoding: Any, answer: Tensor) -> Prediction:
    scores = dict(zip(task.names, answer.tolist(), strict=True))
    return Prediction(text, ", ".join(f"{value:.4g}" for value in scores.values()), scores)


def _tags(task: Task, text: Text, encoding: Any, answer: Tensor) -> Prediction:
    """Each word with the tag of its first token."""
    words, tags = str(text).split(), answer.argmax(dim=-1).tolist()
    found = [f"{words[word]}/{task.names[tags[place]]}" for place, word in first_tokens(encoding)]
    return Prediction(text, " ".join(found), {})


def _span(_task: Task, text: Text, encoding: Any, answer: Tensor) -> Prediction:
    """The part of the second text between the likeliest start and the likeliest end behind it."""
    inside = torch.tensor([part == 1 for part in encoding.sequence_ids])
    start, end = answer[:, : len(inside)].masked_fill(~inside, -torch.inf)
    pairs = (start[:, None] + end[None, :]).masked_fill(
        ~torch.ones(len(inside), len(inside), dtype=torch.bool).triu(), -torch.inf
    )
    first, last = divmod(int(pairs.argmax()), len(inside))
    left, right = encoding.offsets[first][0], encoding.offsets[last][1]
    return Prediction(text, text[1][left:right].strip(), {})


_SAID: Mapping[Targets, Callable[[Task, Text, Any, Tensor], Prediction]] = {
    "binary": _labels,
    "classes": _class,
    "numbers": _numbers,
    "spans": _span,
    "tags": _tags,
}
"""How an answer is said, by targets."""
