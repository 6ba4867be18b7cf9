"""A distillation made ready: everything that it names is built and checked before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from fedkd import data, devices, models, rng, tasks
from fedkd.config import Distillation, Frozen, Trained, with_specs
from fedkd.data import views
from fedkd.data.texts import tokenizer
from fedkd.data.types import Dataset
from fedkd.data.views import Sight
from fedkd.errors import ConfigError
from fedkd.learning import augment, ways
from fedkd.learning.dp import plan
from fedkd.learning.forms import terms
from fedkd.learning.ways import weights
from fedkd.learning.ways.base import Splits, task_of, task_seen
from fedkd.learning.ways.kind import Way
from fedkd.models.layers import inspect_layers
from fedkd.models.weights import identified
from fedkd.tasks import Task


@dataclass(frozen=True)
class Prepared:
    """A distillation ready to run.

    Attributes:
        distillation: complete: every parameter and every layer said.
        shares: who has what of the data set.
        way: how the student learns.
        params: the way's parameters.
        teachers: in the configuration's order; fresh, or with the weights that are given.
        digests: SHA-256 of the files of given weights, in the same order.
        device: where models learn.
    """

    distillation: Distillation
    shares: Splits
    way: Way
    params: Frozen
    teachers: tuple[nn.Module, ...]
    digests: tuple[str, ...] = ()
    device: torch.device = devices.CPU

    @cached_property
    def task(self) -> Task:
        """What is asked of the student."""
        return task_of(self.distillation, self.data)

    @property
    def data(self) -> Dataset:
        """What the student has of the data set."""
        return self.shares.student

    def student(self, teachers: tuple[nn.Module, ...]) -> nn.Module:
        """A fresh student on the device, made ready for the way; the same at every call.

        Args:
            teachers: as `teachers`, perhaps trained since.

        Raises:
            ConfigError: model, teachers and way do not fit.
        """
        fresh = _student(self.distillation, self.way, self.params, self.task, teachers)
        return fresh.to(self.device)


def student(distillation: Distillation, task: Task, teachers: Sequence[Task]) -> nn.Module:
    """A finished distillation's student anew, without its data: fresh, of the right architecture.

    Args:
        distillation: complete, as a run keeps it.
        task: what is asked of the student.
        teachers: what is asked of each teacher, who may see another part of a record.

    Raises:
        ConfigError: model, teachers and way do not fit.
    """
    way, params, distillation = ways.resolve(distillation)
    shaping = () if way.remake is None else _teachers(distillation, teachers)
    return _student(distillation, way, params, task, shaping)


def shares(distillation: Distillation) -> Splits:
    """Who has what of a distillation's data set.

    Raises:
        ConfigError: the way cannot share this data set.
        DataError: it is missing, corrupt or does not fit.
    """
    way, params, distillation = ways.resolve(distillation)
    targets = tasks.find(distillation.task.name).targets
    dataset = data.load(distillation.data, seed=distillation.seed, targets=targets)
    student, teachers = _sights(distillation, dataset)
    unlike = any(each != student for each in teachers)
    if unlike:
        _check_views(distillation, way, dataset)
    else:  # nobody has anything to do with the rest of a record
        dataset = dataset.seen_by(student)
    part = dataset.seen_by(student) if unlike else dataset
    ways.check_task(way, params, distillation.way.name, task_of(distillation, part))
    count = len(distillation.teachers)
    dealt = Splits(dataset, dataset, (dataset,) * count)
    if way.share is not None:
        dealt = way.share(dataset, count, params, rng.stream(distillation.seed, purpose="shares"))
    if not unlike:
        return dealt
    seen = zip(dealt.teachers, teachers, strict=True)
    return replace(
        dealt,
        student=dealt.student.seen_by(student),
        teachers=tuple(each.seen_by(sight) for each, sight in seen),
        shown=tuple(dealt.student.train.seen_by(sight).x for sight in teachers),
    )


def _sights(
    distillation: Distillation, dataset: Dataset
) -> tuple[Sight | None, tuple[Sight | None, ...]]:
    """What the student sees of a record, and each teacher; None: all."""

    def find(named: Trained, key: str) -> Sight | None:
        x, groups = dataset.train.x, distillation.data.views
        return views.sight(named.views, x, dataset.features, groups, key=f"{key}.views")

    if dataset.own:
        _check_tokens(distillation, dataset)
    student = find(distillation.student, "student")
    teachers = (find(each, f"teachers[{n}]") for n, each in enumerate(distillation.teachers))
    return student, tuple(teachers)


def _check_tokens(distillation: Distillation, dataset: Dataset) -> None:
    """Refuse who would write in the tokens of none, or of several."""
    parties = {f"teachers[{n}]": each for n, each in enumerate(distillation.teachers)}
    for who, each in {"student": distillation.student, **parties}.items():
        if len(each.views) != 1:
            raise ConfigError(
                f"{who}.views is {list(each.views)}, and what is written is in the tokens of one: "
                f"name one of the tokenisers {', '.join(dataset.own)}"
            )


def _check_views(distillation: Distillation, way: Way, dataset: Dataset) -> None:
    name = distillation.way.name
    if dataset.own and not way.unlike_tokens:
        fit = ", ".join(each for each, other in ways.BUILT_IN.items() if other.unlike_tokens)
        raise ConfigError(
            f"way {name!r} compares token by token, and student.views and teachers.views are "
            f"unlike tokenisers: choose among {fit}, or give all the same"
        )
    if not way.unlike_views:
        fit = ", ".join(each for each, other in ways.BUILT_IN.items() if other.unlike_views)
        raise ConfigError(
            f"way {name!r} shows student and teachers the same, and student.views and "
            f"teachers.views differ: choose among {fit}, or give all the same views"
        )
    if distillation.student.training.augment:
        raise ConfigError(
            "student.training.augment changes what the student sees, and its teachers see another "
            "view of the record: leave it out, or give all the same views"
        )


def prepare(distillation: Distillation) -> Prepared:
    """Build and check all that a distillation names.

    Args:
        distillation: what will run.

    Raises:
        ConfigError: an unknown way, form, model, layer or parameter, or parts that do not fit.
        DataError: a data set that is missing, corrupt or does not fit.
        BudgetError: the plan costs more than the budget that it names.
    """
    distillation = with_specs(distillation, identified)
    way, params, distillation = ways.resolve(distillation)
    (device, *_) = devices.resolve(distillation.engine.device, key="engine.device")
    if distillation.privacy is not None:
        devices.check_exact([device], distillation.engine.precision, key="engine.device")
    resolved = tuple(weights.resolve(each, n) for n, each in enumerate(distillation.teachers))
    distillation = distillation.model_copy(update={"teachers": resolved})
    dealt = shares(distillation)
    known = tokenizer.settled(distillation.data, dealt.whole.tokenizers)
    distillation = distillation.model_copy(update={"data": known})
    if way.check is not None:
        way.check(task_of(distillation, dealt.student), params)
    shapes = [each.shape for each in dealt.teachers]
    _check_augment(distillation, task_of(distillation, dealt.student), shapes)
    asked = task_of(distillation, dealt.student)
    seen = [task_seen(distillation, asked, each) for each in dealt.teachers]
    teachers = _teachers(distillation, seen)
    digests = tuple(
        weights.load_weights(each, model, number)
        for number, (each, model) in enumerate(zip(resolved, teachers, strict=True))
        if each.weights is not None
    )
    ready = _complete(Prepared(distillation, dealt, way, params, teachers, digests))
    for teacher in teachers:
        teacher.to(device)
    return replace(ready, device=device)


def _check_augment(
    distillation: Distillation, task: Task, teachers: Sequence[tuple[int, ...]]
) -> None:
    follow = task.likelihood.moved is not None
    own = distillation.student.training.augment
    key = "student.training.augment"
    augment.check(own, task.inputs, task.targets, key=key, along=follow)
    for number, (each, shape) in enumerate(zip(distillation.teachers, teachers, strict=True)):
        if each.weights is not None:
            continue  # it has learned already
        key = f"teachers[{number}].training.augment"
        augment.check(each.training.augment, shape, task.targets, key=key, along=follow)


def _teachers(distillation: Distillation, seen: Sequence[Task]) -> tuple[nn.Module, ...]:
    return tuple(
        models.build(
            each.model,
            shape=task.inputs,
            classes=task.classes,
            generator=rng.stream(distillation.seed, purpose="teacher model", client=number),
            task=task,
        )
        for number, (each, task) in enumerate(zip(distillation.teachers, seen, strict=True))
    )


def _student(
    distillation: Distillation,
    way: Way,
    params: Frozen,
    task: Task,
    teachers: tuple[nn.Module, ...],
) -> nn.Module:
    fresh = models.build(
        distillation.student.model,
        shape=task.inputs,
        classes=task.classes,
        generator=rng.stream(distillation.seed, purpose="student model"),
        task=task,
    )
    if way.remake is None:
        return fresh
    draws = rng.stream(distillation.seed, purpose="student remade")
    return way.remake(fresh, teachers, params, task.inputs, draws)


def _complete(ready: Prepared) -> Prepared:
    """With every layer named, and the noise that the budget needs."""
    distillation = ready.distillation
    terms.check_task(distillation.knowledge, ready.task)
    student = ready.student(ready.teachers)
    if distillation.knowledge:
        views = distillation.student.views, distillation.teachers[0].views
        terms.check_alike(distillation.knowledge, *views)
        if ready.shares.whole.own and ready.shares.shown:
            terms.check_any_classes(distillation.knowledge)
        anatomies = (
            inspect_layers(student, ready.data.shape),
            inspect_layers(ready.teachers[0], ready.shares.teachers[0].shape),
        )
        knowledge = terms.resolve(distillation.knowledge, *anatomies)
        distillation = distillation.model_copy(update={"knowledge": knowledge})
    if distillation.privacy is not None:
        records = len(ready.data.train)
        distillation = plan.resolve(distillation, distillation.privacy, records, ready.task)
        teacher, shown = ready.teachers[0], ready.shares.teachers[0].shape
        plan.check_student(distillation, student, teacher, ready.data, ready.task, shown)
    return replace(ready, distillation=distillation)
