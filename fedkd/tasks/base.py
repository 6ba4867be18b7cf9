"""What is asked of a model: a task is a value, and so is all that it is made of."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from fedkd.specs import TensorSpec
from fedkd.tasks.bounded import Bounded
from fedkd.tasks.motion import Motion
from fedkd.tasks.vocabulary import Vocabulary

Targets = Literal[
    "classes",
    "identities",
    "binary",
    "numbers",
    "masks",
    "boxes",
    "points",
    "items",
    "tags",
    "spans",
    "tokens",
    "next-tokens",
]
"""What a data set's targets are, see `fedkd.data.targets.FORMS`.

`classes`: one class a record, int64 (N,). `identities`: who or what a record is of, int64 (N,), and
those of testing may be others than those of training. `binary`: yes or no for each of L labels,
int64 (N, L).
`numbers`: D numbers, float32 (N, D). `masks`: a class for each pixel, int64 (N, H, W). `boxes`: up
to M boxes a record, float32 (N, M, 5), each (class, left, top, right, bottom). `points`: K points a
record, float32 (N, K, 3), each (x, y, visible). `items`: which of I items suit, int64 (N, I).
Of texts of L tokens, -100 where a token does not count: `tags`, a class for each, int64 (N, L);
`spans`, where the answer's first and last token stand, int64 (N, 2); `tokens`, what is to be
written, int64 (N, T); `next-tokens`, what follows each token, int64 (N, L).
"""
WRITTEN: frozenset[Targets] = frozenset({"tokens", "next-tokens"})
"""Targets that a model writes, token by token, so that their classes are a tokeniser's tokens."""
Ask = Literal["classes", "categorical", "items", "boxes", "image", "features", "text"]
"""What a method may ask of a task.

`categorical`: an answer's last axis holds the logits of classes. `classes`: besides, there is one
answer a record, (N, C), and one class, (N,). `items`: an answer holds the logits of items, (N, I),
of which several may suit, and inputs are the items seen before, (I,). `boxes`: an answer is a grid
of centres and shapes, as `boxes.grid` has it. `image`: inputs are
(C, H, W). `features`: inputs are (F,). `text`: inputs are token numbers, (L,).
"""


@dataclass(frozen=True)
class Likelihood:
    """How an answer (N, *A) speaks of a target (N, *T); classes are an answer's last axis.

    Attributes:
        nll: (answers, targets) -> (N,), the negative log-likelihood of each record in nats, up to a
            constant: its mean over the places of a record that count.
        mean_nll: the mean of `nll` over records, in one kernel where there is one.
        divergence: (student, teacher, temperature=T) -> (N,), how far a student's answers are from
            a teacher's, in nats times T^2; at least 0.
        decide: (N, *A) -> (N, *T), an answer as a target.
        moved: (targets, motion) -> targets of images that were moved so; None: they do not say
            where in an image anything is.
        couples: whether the loss of a record depends on others of its batch, so that no record has
            a gradient of its own: DP-SGD cannot learn by it, and no attack scores a record by it.
        mix: (K, N, *A) -> (N, *A), what answers of K models come to together, where their mean says
            nothing; None: their mean.
        bounded: the form in which robust rules compare answers; None: as they are.
    """

    nll: Callable[[Tensor, Tensor], Tensor]
    mean_nll: Callable[[Tensor, Tensor], Tensor]
    divergence: Callable[..., Tensor]
    decide: Callable[[Tensor], Tensor]
    couples: bool = False
    mix: Callable[[Tensor], Tensor] | None = None
    moved: Callable[[Tensor, Motion], Tensor] | None = None
    bounded: Bounded | None = None


K = TypeVar("K")
ACCURACY = "accuracy"
"""The score whose figures and counters have kept the names of when there was no other."""


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of those that are defined; None where none is."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _no_totals(_targets: Tensor) -> Tensor:
    """Nothing bounds a tally."""
    return torch.tensor(torch.inf, dtype=torch.float64)


class Figures:
    """What a score's figures are called, and which is better."""

    name: str
    higher: bool
    share: bool

    @property
    def figure(self) -> str:
        """The name of its number in a record: `name` as an identifier."""
        return self.name.replace("-", "_")

    @property
    def mean(self) -> str:
        """The name of a mean of its numbers in a record."""
        return f"mean_{self.figure}"

    @property
    def weighted(self) -> str:
        """The name of a mean of its numbers by rows in a record."""
        return f"weighted_mean_{self.figure}"

    @property
    def at_best(self) -> str:
        """The name of the best of its numbers in a record."""
        return f"best_{self.figure}"

    @property
    def by_class(self) -> str:
        """The name of the list of its figures by class or label, where `read` gives one."""
        return "by_class" if self.name == ACCURACY else f"{self.figure}_by_class"

    def gain(self, figure: float | None, before: float | None) -> float | None:
        """By how much one figure is better than another; None where either is not known."""
        if figure is None or before is None:
            return None
        return figure - before if self.higher else before - figure

    def ranked(self, figures: Mapping[K, float]) -> list[K]:
        """The names of figures, the best first, those that are NaN last; ties stay in order."""
        sign = -1 if self.higher else 1
        return sorted(figures, key=lambda name: (math.isnan(figures[name]), sign * figures[name]))

    def best(self, figures: Iterable[float | None]) -> float | None:
        """The best of figures; None where none is defined."""
        defined = [figure for figure in figures if figure is not None]
        return (max if self.higher else min)(defined, default=None)


@dataclass(frozen=True)
class Score(Figures):
    """How good answers are, in two steps: counters that may be added, then figures.

    Counters are all that crosses the wire. Adding those of parts gives that of the whole; of
    pairs of records it gives those within the parts.

    Attributes:
        name: as `[task] scores` has it, such as `macro-f1`.
        tally: (answers (N, *A), targets (N, *T)) -> counters, as `counts` says.
        read: (counters, totals) -> figures by name, for a record and a report; `figure` is one of
            them; others may be lists, such as one number a class.
        counts: what counters look like, and the least of each.
        totals: targets -> the most that each counter can be, of a shape that broadcasts; `read` is
            given it too.
        higher: whether more is better.
        share: whether the figure is a share of 1, and so is shown as a percentage.
        number: whether the figure is one number, and so may be the headline.
        together: whether it counts pairs of records, and so takes all that a party has at once.
        written: the task whose models write what it counts, token numbers (N, T) in place of
            answers; None: it counts answers.
    """

    name: str
    tally: Callable[[Tensor, Tensor], Tensor]
    read: Callable[[Tensor, Tensor], Mapping[str, Any]]
    counts: TensorSpec
    totals: Callable[[Tensor], Tensor] = _no_totals
    higher: bool = True
    share: bool = True
    number: bool = True
    together: bool = False
    written: "Task | None" = None

    def of(self, answers: Tensor, targets: Tensor) -> Mapping[str, Any]:
        """The figures of these answers to these targets."""
        return self.read(self.tally(answers, targets), self.totals(targets))


@dataclass(frozen=True)
class Task:
    """What goes in, what comes out, what it is held against, and how good that is.

    Attributes:
        name: as `[task] name` has it.
        inputs: the shape of one record's inputs.
        answer: the shape of one record's answer.
        targets: what a data set's targets are.
        names: of the places of an answer's last axis: classes, labels or numbers.
        likelihood: by which models learn.
        scores: at least one; the first is the headline of tables and charts.
        offers: what methods may ask.
        vocabularies: of texts, what tokens inputs hold; by view, where records have several.
    """

    name: str
    inputs: tuple[int, ...]
    answer: tuple[int, ...]
    targets: Targets
    names: tuple[str, ...]
    likelihood: Likelihood
    scores: tuple[Score, ...]
    offers: frozenset[Ask] = field(default_factory=frozenset)
    vocabularies: Mapping[str, Vocabulary] = field(default_factory=dict)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """What tokens inputs of one tensor hold; None of records that are no texts."""
        return next(iter(self.vocabularies.values())) if len(self.vocabularies) == 1 else None

    def blank(self, count: int) -> Tensor:
        """Empty inputs (count, *inputs): zeros, or of texts a token that is none of the marks."""
        if (words := self.vocabulary) is None:
            return torch.zeros(count, *self.inputs)
        marks = (words.padding, words.start, words.end)
        token = next((n for n in range(words.size) if n not in marks), words.end)
        return torch.full((count, *self.inputs), token)

    @property
    def headline(self) -> Score:
        """The score of tables and charts."""
        return self.scores[0]

    @property
    def numbers(self) -> tuple[Score, ...]:
        """The scores that are one number each; the headline is the first."""
        return tuple(score for score in self.scores if score.number)

    @property
    def classes(self) -> int:
        """How many classes, labels or numbers an answer's last axis has."""
        return self.answer[-1]


def with_inputs(
    task: Task, inputs: tuple[int, ...], vocabularies: Mapping[str, Vocabulary] | None = None
) -> Task:
    """The same task of records of another shape, such as a part of each, or of texts.

    Args:
        task: of other inputs.
        inputs: the shape of one record.
        vocabularies: of texts, by view; none of what is no text.
    """
    words = vocabularies or {}
    own = kinds_of(inputs, words)
    offers = (task.offers - kinds_of(task.inputs, task.vocabularies)) | own
    return replace(task, inputs=inputs, offers=offers, vocabularies=words)


def kinds_of(
    inputs: tuple[int, ...], vocabularies: Mapping[str, Vocabulary] | None = None
) -> frozenset[Ask]:
    """What inputs of a shape offer: `image` for (C, H, W), `features` for (F,), `text` of texts."""
    if vocabularies:
        return frozenset({"text"})
    kinds: dict[int, Ask] = {3: "image", 1: "features"}
    return frozenset({kinds[len(inputs)]} if len(inputs) in kinds else ())
