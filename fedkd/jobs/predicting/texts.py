"""How what a student answers of texts is said, by what it was taught to answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedkd.data.texts.tokenizer import Tokenizer, first_tokens, padded
from fedkd.jobs.predicting import answers
from fedkd.jobs.predicting.answers import Said
from fedkd.jobs.predicting.prediction import Prediction, Text, ranked
from fedkd.knowledge.geometry import unit
from fedkd.learning import evaluate
from fedkd.models.text.writing import write
from fedkd.tasks import Targets, Task


@dataclass(frozen=True)
class Asked:
    """Texts, N of them, that a student is asked about.

    Attributes:
        task: what the student was taught.
        model: the student, in evaluation mode.
        tokenizer: the student's.
        texts: as they were asked.
        encodings: of each its tokens, as the library has them.
        among: texts of which one is looked for, and the tokens of each.
        most: the most tokens that are written of a text; None: as many as it can.
    """

    task: Task
    model: nn.Module
    tokenizer: Tokenizer
    texts: Sequence[Text]
    encodings: Sequence[Any]
    among: Mapping[str, Any]
    most: int | None

    def inputs(self, encodings: Sequence[Any], length: int) -> Tensor:
        """Token numbers, int64 (N, length)."""
        padding = self.tokenizer.vocabulary.padding
        return padded([each.ids for each in encodings], length, padding)

    def decoded(self, rows: Tensor) -> list[Prediction]:
        """Token numbers (N, L) as what is said of each text."""
        said = self.tokenizer.decode(rows)
        return [Prediction(text, each, {}) for text, each in zip(self.texts, said, strict=True)]


_Say = Callable[[Task, Text, Any, Tensor], Prediction]
"""(task, text, its encoding, its answer) -> how it is said."""


def _each(say: _Say) -> Callable[[Asked], list[Prediction]]:
    """Of a student that is asked once about each text."""

    def said(asked: Asked) -> list[Prediction]:
        task = asked.task
        x = asked.inputs(asked.encodings, task.inputs[-1])
        given = evaluate.answers(asked.model, x)
        return [
            say(task, text, encoding, answer)
            for text, encoding, answer in zip(asked.texts, asked.encodings, given, strict=True)
        ]

    return said


def _as_any(say: Callable[[Task, Tensor], Said]) -> Callable[[Asked], list[Prediction]]:
    """As of a record that is no text."""
    return _each(lambda task, text, _encoding, answer: Prediction(text, *say(task, answer)))


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


def _written(asked: Asked) -> list[Prediction]:
    """Another text of each, each token the likeliest."""
    task, marks = asked.task, asked.tokenizer.vocabulary
    texts = asked.inputs(asked.encodings, task.inputs[-1] - task.answer[0])
    begun = torch.full((len(texts), task.answer[0]), marks.padding)
    begun[:, 0] = marks.start
    rows = write(asked.model, torch.cat([texts, begun], dim=1), task)
    return asked.decoded(rows[:, : asked.most])


def _continued(asked: Asked) -> list[Prediction]:
    """Each text with what goes on from it, each token the likeliest."""
    task, marks = asked.task, asked.tokenizer.vocabulary
    begun = [each.ids for each in asked.encodings]
    # A text that has its end does not go on.
    begun = [ids[:-1] if ids[1:] and ids[-1] == marks.end else ids for ids in begun]
    begun = [ids or [marks.start] for ids in begun]
    rows = write(asked.model, padded(begun, task.inputs[-1], marks.padding), task)
    if asked.most is not None:
        last = torch.tensor([len(ids) + asked.most for ids in begun])
        rows = rows.masked_fill(torch.arange(rows.shape[1]) >= last[:, None], marks.padding)
    return asked.decoded(rows)


def _found(asked: Asked) -> list[Prediction]:
    """Of each question the text whose vector is nearest to its own, by cosine."""
    task, model = asked.task, asked.model

    def vectors(encodings: Sequence[Any], side: int) -> Tensor:
        x = asked.inputs(encodings, task.inputs[-1])
        # A model of pairs is asked about both sides at once, and one is looked at.
        return unit(evaluate.answers(model, torch.stack([x, x], dim=1))[:, side], dim=-1)

    alike = vectors(asked.encodings, 0) @ vectors(list(asked.among.values()), 1).T
    predictions = []
    for text, row in zip(asked.texts, alike.tolist(), strict=True):
        cosines = dict(zip(asked.among, row, strict=True))
        nearest = ranked(cosines)
        predictions.append(Prediction(text, next(iter(nearest)), nearest))
    return predictions


SAID: Mapping[Targets, Callable[[Asked], list[Prediction]]] = {
    "binary": _as_any(answers.labels),
    "classes": _as_any(answers.classes),
    "identities": _found,
    "next-tokens": _continued,
    "numbers": _as_any(answers.numbers),
    "spans": _each(_span),
    "tags": _each(_tags),
    "tokens": _written,
}
"""How answers are said, by targets."""
