"""Who sees what: teachers all of each sample, the student a part; the way `privileged`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from fedkd import rows
from fedkd.config import Frozen
from fedkd.data.readers.tables import columns
from fedkd.data.types import Dataset, Samples
from fedkd.data.views import Sight
from fedkd.errors import ConfigError
from fedkd.learning import offline
from fedkd.learning.loop import OnEpoch
from fedkd.learning.ways import generalised
from fedkd.learning.ways.base import Splits, StudentRun
from fedkd.learning.ways.generalised import SightedTeacher
from fedkd.tasks import Task


class PrivilegedTeachers(Frozen):
    """Parameters of `privileged`; `columns` or `side` says what the student does not see."""

    columns: tuple[str, ...] = ()
    """Tests, or single columns, that only teachers see."""
    side: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    """Images: the student sees them scaled down to so many pixels a side, or [height, width]."""
    blind: tuple[int, ...] = ()
    """The numbers, from 0, of teachers without privilege: they see what the student sees."""
    imitation: float = Field(default=0.5, ge=0, le=1)
    """The teachers' share of the loss; the labels have the rest. With [[knowledge]] its forms stand
    in the teachers' place, each with its own weight."""
    temperature: float = Field(default=1.0, gt=0)
    """Of what the teachers say."""


def scaled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (N, C, H, W) -> (N, C, *size), bilinear with antialiasing."""
    return F.interpolate(x, size=size, mode="bilinear", antialias=True)


def check(task: Task, params: PrivilegedTeachers) -> None:
    """Refuse to scale images whose targets are places in them.

    Raises:
        ConfigError: what the task's targets are.
    """
    if params.side is not None and task.targets in ("masks", "boxes", "points"):
        raise ConfigError(
            f"way.side scales images, and targets ({task.targets}) would have to be scaled too: "
            "choose another way, or a task whose targets are no places in an image"
        )


def share(
    whole: Dataset, teachers: int, params: PrivilegedTeachers, _draws: torch.Generator
) -> Splits:
    """The student has a part of each sample, teachers all of it unless blind.

    Raises:
        ConfigError: not exactly one of `columns` and `side` is given, or it does not fit the data.
    """
    if bool(params.columns) == (params.side is not None):
        raise ConfigError(
            "way 'privileged' needs to know what only teachers see: expected way.columns, for rows "
            "with named columns, or way.side, for images"
        )
    unknown = [number for number in params.blind if not 0 <= number < teachers]
    if unknown:
        raise ConfigError(f"way.blind names teacher {unknown[0]}: there are {teachers}, from 0")
    own = _part(whole, params)
    seen = (own if number in params.blind else whole for number in range(teachers))
    return Splits(whole, own, tuple(seen))


def _part(whole: Dataset, params: PrivilegedTeachers) -> Dataset:
    """What the student sees."""
    if params.side is not None:
        size = params.side if isinstance(params.side, tuple) else (params.side, params.side)
        if len(whole.shape) != 3 or size[0] > whole.shape[1] or size[1] > whole.shape[2]:
            raise ConfigError(
                f"way.side is {params.side}: expected images of at least so many pixels a side, "
                f"the data has inputs of shape {whole.shape}"
            )
        train, test = (
            Samples(rows.converted(each.x, partial(scaled, size=size)), each.y)
            for each in (whole.train, whole.test)
        )
        return replace(whole, train=train, test=test)
    places = columns.without(whole.features, params.columns, key="way.columns")
    return whole.seen_by(Sight.of_columns(places))


def was_measured(x: Tensor, features: Sequence[str], hidden: Sequence[str]) -> Tensor:
    """Rows (N, F) -> bool (N,): was any of the hidden tests made?

    A test is missing where its column `TEST?` is 1; one without such a column never is.

    Args:
        x: all columns.
        features: their names.
        hidden: see `columns.without`.
    """
    tests = dict.fromkeys(columns.test_of(name) for name in hidden)
    marks = [columns.indicator(test) for test in tests]
    if not all(mark in features for mark in marks):
        return torch.ones(len(x), dtype=torch.bool)
    return (x[:, [features.index(mark) for mark in marks]] != 1).any(dim=1)


def learn(run: StudentRun, params: PrivilegedTeachers) -> nn.Module:
    """The way `privileged`."""
    student = run.student()
    train = _by_forms if run.distillation.knowledge else _by_answers
    run.stage(
        "student",
        student,
        lambda on_epoch: train(run, params, student, on_epoch),
        epochs=run.training.epochs,
    )
    return student


def _by_answers(
    run: StudentRun, params: PrivilegedTeachers, student: nn.Module, on_epoch: OnEpoch
) -> None:
    """What is passed on is what teachers answer."""
    whole, made = run.shares.whole, None
    if params.columns:
        made = was_measured(rows.whole(whole.train.x), whole.features, params.columns)
    everyone = torch.ones(len(whole.train), dtype=torch.bool)
    witnesses = [
        SightedTeacher(
            teacher, has.train.x, everyone if made is None or number in params.blind else made
        )
        for number, (teacher, has) in enumerate(zip(run.teachers, run.shares.teachers, strict=True))
    ]
    generalised.distil(
        student,
        run.data.train,
        witnesses,
        run.training,
        run.stream("student batches"),
        imitation=params.imitation,
        temperature=params.temperature,
        likelihood=None if "classes" in run.task.offers else run.task.likelihood,
        on_epoch=on_epoch,
    )


def _by_forms(
    run: StudentRun, params: PrivilegedTeachers, student: nn.Module, on_epoch: OnEpoch
) -> None:
    """What is passed on is what `[[knowledge]]` says, of all samples."""
    teacher, has = run.teachers[0], run.shares.teachers[0]
    offline.teach(
        student,
        teacher,
        run.terms(student, teacher),
        run.data.train,
        run.training,
        run.stream("student batches"),
        labels=1 - params.imitation,
        likelihood=run.task.likelihood,
        shown=has.train.x,
        on_epoch=on_epoch,
    )
