"""What a distillation adds to the loss: forms of knowledge, tied to layers of two models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from fedkd.config import Knowledge
from fedkd.errors import ConfigError
from fedkd.learning import forms
from fedkd.learning.forms.base import Compared, Form
from fedkd.learning.loop import OnEpoch
from fedkd.models.layers import INPUTS, LOGITS, LayerShapes
from fedkd.tasks import Likelihood, Task, Vocabulary
from fedkd.tasks.likelihoods.categorical import CATEGORICAL

Layers = Mapping[str, Tensor]
"""What a model shows of a batch, as `models.layers.forward_with` gives it."""


@dataclass(frozen=True)
class Term:
    """A form of knowledge with its weight, between layers of a student and of a teacher."""

    weight: float
    student: tuple[str, ...]
    teacher: tuple[str, ...]
    compared: Compared

    def __call__(self, student: Layers, teacher: Layers, y: Tensor) -> Tensor:
        """The loss, not reduced and not weighted."""
        return self.compare(self.adapted(student), teacher, y)

    def adapted(self, student: Layers) -> list[Tensor]:
        """The student's layers, each through its adapter."""
        return [
            each(student[n]) for each, n in zip(self.compared.student, self.student, strict=True)
        ]

    def compare(self, ours: Sequence[Tensor], teacher: Layers, y: Tensor) -> Tensor:
        """As a call, of the student's layers adapted."""
        if self.compared.loss is None:
            return y.new_zeros((), dtype=torch.float32)
        theirs = [
            each(teacher[n]) for each, n in zip(self.compared.teacher, self.teacher, strict=True)
        ]
        return self.compared.loss(ours, theirs, y)


class Terms:
    """The weighted sum of several terms, and what is learned with them."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self.all = tuple(terms)
        self.student = tuple(dict.fromkeys(name for term in self.all for name in term.student))
        """The student's layers that are looked at."""
        self.teacher = tuple(dict.fromkeys(name for term in self.all for name in term.teacher))
        """Likewise the teacher's."""
        self.learned = nn.ModuleList(
            module
            for term in self.all
            for module in (term.compared.student, term.compared.beside)
            if module is not None
        )
        """What learns with the student."""

    def to(self, device: torch.device) -> Self:
        """Itself, with all that learns or adapts on a device."""
        for term in self.all:
            first = term.compared.first
            for module in (
                term.compared.student,
                term.compared.teacher,
                term.compared.beside,
                None if first is None else first.learned,
            ):
                if module is not None:
                    module.to(device)
        return self

    def following(self, on_epoch: OnEpoch | None) -> OnEpoch:
        """What a training is to call after each epoch, so that each term knows the next one."""

        def begin(epoch: int) -> None:
            for term in self.all:
                if term.compared.begin is not None:
                    term.compared.begin(epoch)

        def ended(epoch: int, loss: float) -> None:
            begin(epoch + 1)
            if on_epoch is not None:
                on_epoch(epoch, loss)

        begin(1)
        return ended

    def __call__(self, student: Layers, teacher: Layers, y: Tensor) -> Tensor:
        """The sum of weight * mean over the terms, a scalar."""
        total = student[LOGITS].new_zeros(())
        for term in self.all:
            total = total + term.weight * term(student, teacher, y).mean()
        return total


class Counted(nn.Module):
    """Texts (N, L) as which of their tokens count, bool (N, L); the first always does."""

    def __init__(self, words: Vocabulary | None) -> None:
        super().__init__()
        if words is None:
            raise ValueError("Expected texts of one vocabulary; the form must say that it asks so.")
        self._padding = words.padding

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return (x != self._padding) | (torch.arange(x.shape[1], device=x.device) == 0)


def resolve(
    knowledge: Sequence[Knowledge], student: LayerShapes, teacher: LayerShapes
) -> tuple[Knowledge, ...]:
    """Complete forms of knowledge: every parameter and every layer said.

    Raises:
        ConfigError: a form, a parameter or a layer is wrong or does not fit.
    """
    return tuple(_resolved(each, number, student, teacher) for number, each in enumerate(knowledge))


def check_task(knowledge: Sequence[Knowledge], task: Task) -> None:
    """Refuse forms of knowledge that the task's answers do not have, or not by these parameters.

    Raises:
        ConfigError: names the forms that fit, or what the parameter should be.
    """
    for number, each in enumerate(knowledge):
        form = forms.find(each.name)
        if not task.offers.issuperset(form.asks):
            raise ConfigError(
                f"knowledge[{number}] ({each.name}) compares {form.compares}, and task "
                f"{task.name!r} has none: choose one of {', '.join(forms.fitting(task))}"
            )
        if form.masked and task.vocabulary is None:
            raise ConfigError(
                f"knowledge[{number}] ({each.name}) compares tokens, and the student sees texts of "
                f"{len(task.vocabularies)} tokenisers: let it see one (student.views)"
            )
        form.fits(forms.parameters(each, number), task, f"knowledge[{number}]")


def check_alike(knowledge: Sequence[Knowledge], student: object, teacher: object) -> None:
    """Refuse forms that compare tokens where the models see other views of a text.

    Raises:
        ConfigError: so it is.
    """
    for number, each in enumerate(knowledge):
        if forms.find(each.name).masked and student != teacher:
            raise ConfigError(
                f"knowledge[{number}] ({each.name}) compares tokens one by one, and teacher and "
                "student see different views: let both see the same, or choose a form of answers"
            )


def check_any_classes(knowledge: Sequence[Knowledge]) -> None:
    """Refuse forms that compare the same classes, or layers, where models write in unlike tokens.

    Raises:
        ConfigError: names those that do not.
    """
    for number, each in enumerate(knowledge):
        if not forms.find(each.name).any_classes:
            fit = ", ".join(name for name, form in forms.BUILT_IN.items() if form.any_classes)
            raise ConfigError(
                f"knowledge[{number}] ({each.name}) compares token by token, and teacher and "
                f"student have unlike tokenisers: choose {fit}, or the way 'sequence-level'"
            )


def build(
    knowledge: Sequence[Knowledge],
    student: LayerShapes,
    teacher: LayerShapes,
    generator: torch.Generator,
    likelihood: Likelihood = CATEGORICAL,
    words: Vocabulary | None = None,
) -> Terms:
    """The terms of forms that are resolved.

    Args:
        knowledge: as `resolve` gives it.
        student: of the model that learns.
        teacher: of the model that knows.
        generator: determines the initial weights of what is learned.
        likelihood: the task's.
        words: of texts, what tells padding.
    """
    terms = []
    for number, each in enumerate(knowledge):
        params, form = forms.parameters(each, number), forms.find(each.name)
        names = _shown(form, each)
        ours, theirs = (
            [anatomy.shapes[name] for name in layers]
            for anatomy, layers in zip((student, teacher), names, strict=True)
        )
        compared = form.compared(params, ours, theirs, generator, likelihood, teacher.prototypes)
        shown = names[0]
        if form.masked:
            compared.student.append(Counted(words))
            shown = (*shown, INPUTS)
        terms.append(Term(params.weight, shown, names[1], compared))
    return Terms(terms)


def _shown(form: Form, each: Knowledge) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which of the student's and of the teacher's layers a form is shown."""
    if form.looks_at == "student":
        return (*each.student, LOGITS), (LOGITS,)
    return (each.student, each.teacher) if each.student else ((LOGITS,), (LOGITS,))


def _resolved(
    each: Knowledge, number: int, student: LayerShapes, teacher: LayerShapes
) -> Knowledge:
    form, params = forms.find(each.name), forms.parameters(each, number)
    where = f"knowledge[{number}] ({each.name})"
    layers = {
        side: _layers(form, getattr(each, side), anatomy, f"{where}.{side}")
        for side, anatomy in (("student", student), ("teacher", teacher))
    }
    if form.looks_at == "student" and each.teacher:
        raise ConfigError(
            f"{where}.teacher is {each.teacher[0]!r}: this form looks at the teacher's answer, "
            "leave it out"
        )
    if form.looks_at == "student":
        layers["teacher"] = ()
    elif len(layers["student"]) != len(layers["teacher"]):
        raise ConfigError(
            f"{where} names {len(layers['student'])} layers of the student and "
            f"{len(layers['teacher'])} of the teacher: expected as many"
        )
    complete = params.model_dump(mode="json", exclude_none=True)
    return Knowledge.model_validate({"name": each.name, **layers, **complete})


def _layers(
    form: Form, named: tuple[str, ...], anatomy: LayerShapes, where: str
) -> tuple[str, ...]:
    """The layers that a form looks at, by default the last ones that will do."""
    if form.looks_at in ("logits", "answers"):
        if named:
            raise ConfigError(f"{where} is {named[0]!r}: this form looks at logits, leave it out")
        return ()
    chosen = named or _default(form, anatomy, where)
    if len(chosen) < form.least:
        raise ConfigError(f"{where} names {len(chosen)} layer: expected at least {form.least}")
    for name in chosen:
        try:
            shape = anatomy.shape(name)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        if form.looks_at == "maps" and len(shape) != 3:
            raise ConfigError(
                f"{where} is {name!r}, which gives features {shape}: expected maps (channels, "
                "height, width)"
            )
    return chosen


def _default(form: Form, anatomy: LayerShapes, where: str) -> tuple[str, ...]:
    default = {
        "features": anatomy.features,
        "student": anatomy.features,
        "maps": anatomy.maps,
    }.get(form.looks_at)
    if default is None:
        names = ", ".join(name for name in anatomy.shapes if name != LOGITS)
        raise ConfigError(
            f"{where} is missing: this form has no layer by default here; valid: {names}"
        )
    return (default,)
