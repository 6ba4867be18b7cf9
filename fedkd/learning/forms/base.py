"""What a form of knowledge is: what it looks at, what is learned beside the student, the loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.learning.forms.adapters import Shape
from fedkd.tasks import Ask, Likelihood, Task

Compare = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], Tensor]
"""A loss of the student's layers and the teacher's, adapted, and of targets; not reduced."""


class Weighted(Frozen):
    """The parameters that every form has."""

    weight: float = Field(default=1.0, gt=0)


@dataclass(frozen=True)
class First:
    """What is learned before the student's own training, from the same inputs.

    Attributes:
        epochs: how many.
        loss: of the student's and the teacher's layers as they are.
        learned: what learns; None: the student and its adapters.
    """

    epochs: int
    loss: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
    learned: nn.Module | None = None


@dataclass(frozen=True)
class Compared:
    """How a form compares layers.

    Attributes:
        loss: see `Compare`; None where all is done before the student's own training.
        student: for each layer what adapts the student's.
        teacher: for each layer what adapts the teacher's; fixed in the student's training.
        beside: what else is learned with the student.
        first: what is learned before.
        begin: called before each epoch of the student's training with its number, from 1.
    """

    loss: Compare | None
    student: nn.ModuleList
    teacher: nn.ModuleList
    beside: nn.Module | None = None
    first: First | None = None
    begin: Callable[[int], None] | None = None


Build = Callable[..., Compared]
"""Parameters, shapes of the student's layers and of the teacher's, a generator for weights; what is
`of_task` gets the task's likelihood besides, by keyword, and what is `of_head` the weights (C, D)
of the teacher's last linear layer, or None."""


@dataclass(frozen=True)
class Form:
    """A form of knowledge.

    Attributes:
        paper: where it comes from.
        looks_at: the answer alone (`logits`), so that any method may take it for its loss; answers,
            beside which something is learned or known (`answers`); any layers, layers that give
            maps, or layers that must be named; or layers of the student, its answer after them, and
            the teacher's answer (`student`).
        build: see `Build`.
        Params: its parameters.
        least: the fewest layers of each model, where layers are looked at.
        couples: whether the loss of a sample depends on others of its batch.
        first: whether something is learned before the student's own training.
        asks: what the task must offer.
        of_task: whether it compares as the task's likelihood does.
        masked: whether it looks at tokens, and so is shown which of them count, as the last of
            the student's layers; both models then take the same texts.
        of_head: whether it is told the weights of the teacher's last linear layer.
        joint: whether what learns beside takes several layers at once, and not each its own.
        any_classes: whether the classes of the two models may differ, such as tokens of unlike
            vocabularies.
        fits: (parameters, task, where they stand) -> nothing; raises `ConfigError` where the
            parameters are not of this task.
    """

    paper: str
    looks_at: Literal["logits", "answers", "features", "maps", "named", "student"]
    build: Build
    Params: type[Weighted] = Weighted
    least: int = 1
    couples: bool = False
    first: bool = False
    asks: tuple[Ask, ...] = ()
    of_task: bool = False
    masked: bool = False
    of_head: bool = False
    joint: bool = False
    any_classes: bool = False
    fits: Callable[[Any, Task, str], None] = lambda _params, _task, _key: None

    @property
    def compares(self) -> str:
        """What a task must have for it, in a word."""
        return next((ask for ask in ("items", "boxes", "text") if ask in self.asks), "classes")

    def compared(
        self,
        params: Weighted,
        student: Sequence[Shape],
        teacher: Sequence[Shape],
        generator: torch.Generator,
        likelihood: Likelihood,
        prototypes: Tensor | None = None,
    ) -> Compared:
        """How it compares these layers: see `Build`."""
        own: dict[str, Any] = {"likelihood": likelihood} if self.of_task else {}
        if self.of_head:
            own["prototypes"] = prototypes
        return self.build(params, student, teacher, generator, **own)


def logits(loss: Compare) -> Compared:
    """A form that compares answers."""
    return Compared(loss, nn.ModuleList([nn.Identity()]), nn.ModuleList([nn.Identity()]))


def pairs(
    loss: Callable[[Tensor, Tensor], Tensor],
    student: Sequence[nn.Module],
    teacher: Sequence[nn.Module],
) -> Compared:
    """A form that compares layer by layer and sums over the pairs."""

    def total(ours: Sequence[Tensor], theirs: Sequence[Tensor], _y: Tensor) -> Tensor:
        values = [loss(s, t) for s, t in zip(ours, theirs, strict=True)]
        return torch.stack(values).sum(dim=0)

    return Compared(total, nn.ModuleList(student), nn.ModuleList(teacher))


def unadapted(
    loss: Callable[[Tensor, Tensor], Tensor], student: Sequence[Shape], teacher: Sequence[Shape]
) -> Compared:
    """As `pairs`, of layers as they are."""
    return pairs(loss, [nn.Identity() for _ in student], [nn.Identity() for _ in teacher])
