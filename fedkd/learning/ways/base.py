"""What a way to learn has at hand: the configuration, the data, the teachers, and its records."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from pydantic import Field
from torch import nn

from fedkd import devices, models, rng, tasks
from fedkd.config import Distillation, Frozen, ModelSpec, Optimisation
from fedkd.data.stream import stages
from fedkd.data.types import Dataset
from fedkd.learning.dp.sgd import Noise
from fedkd.learning.forms import terms
from fedkd.learning.forms.terms import Terms
from fedkd.learning.loop import OnEpoch
from fedkd.models.layers import inspect_layers
from fedkd.rows import Rows
from fedkd.tasks import WRITTEN, Task, with_inputs


def task_of(distillation: Distillation, dataset: Dataset) -> Task:
    """What a distillation asks of a model that sees a data set.

    Raises:
        ConfigError: see `tasks.build`.
    """
    task = tasks.build(
        distillation.task,
        inputs=dataset.shape,
        names=dataset.class_names,
        vocabularies=dataset.vocabularies,
        decode=dataset.decode,
    )
    found = stages(distillation.data.stream, dataset.class_names, dataset.targets)
    return task if found is None else found.asked(task)


def task_seen(distillation: Distillation, task: Task, seen: Dataset) -> Task:
    """What is asked of who sees something else of a record than the student, by whose `task`.

    Who writes in tokens of its own is held against these.
    """
    if task.targets in WRITTEN:
        return task_of(distillation, seen)
    return with_inputs(task, seen.shape, seen.vocabularies)


class FromLabels(Frozen):
    """Parameters of a way that learns from labels too."""

    labels: float = Field(default=1.0, ge=0)
    """The weight of the loss on the labels: cross-entropy for classes."""


class Stage(Protocol):
    """A training that is recorded, and that a resumed run takes up as a whole."""

    def __call__(
        self,
        name: str,
        model: nn.Module,
        train: Callable[[OnEpoch], object],
        *,
        epochs: int,
        scored: nn.Module | None = None,
    ) -> None:
        """Train, or load what an earlier run trained in this stage.

        All that a stage draws must come from streams of its own, made in `train`, so that it is the
        same whichever stages ran before it.

        Args:
            name: unique in the run, such as `"teacher 0"`; also `stage` in `rounds.jsonl`.
            model: all that comes out; trained in place, and left in evaluation mode.
            train: does it, and tells what it is given after each epoch.
            epochs: how many there are to be, for the progress bar.
            scored: the classifier that is tested after each epoch, if that is not `model`.
        """


@dataclass(frozen=True, eq=False)
class Splits:
    """Who has what of a data set; of each its own training and test samples."""

    whole: Dataset
    """As the configuration says it."""
    student: Dataset
    """Of the student, and of the plain one that it is compared with."""
    teachers: tuple[Dataset, ...]
    """Of each teacher."""
    shown: tuple[Rows, ...] = ()
    """What each teacher sees of the student's training records; empty: what the student sees."""


@dataclass(frozen=True)
class Private:
    """How a student learns under [privacy].

    Attributes:
        noise: how each step is protected.
        pay: called with a stage's name, its model and a function that trains it by DP-SGD with this
            noise, for as many epochs as the student's training has: pays, then calls it.
    """

    noise: Noise
    pay: Callable[[str, nn.Module, Callable[[], None]], None]


@dataclass(frozen=True)
class StudentRun:
    """See the module; `teachers` are frozen, in evaluation mode and in the file's order."""

    distillation: Distillation
    shares: Splits
    teachers: tuple[nn.Module, ...]
    stage: Stage
    student: Callable[[], nn.Module]
    """A fresh student, the same at every call, made ready for the way."""
    private: Private | None = None
    """Not None under [privacy]: private data is then touched in `pay` alone."""
    device: torch.device = devices.CPU
    """Where its models are, teachers and all."""

    @cached_property
    def task(self) -> Task:
        """What is asked of the student."""
        return task_of(self.distillation, self.data)

    @property
    def data(self) -> Dataset:
        """What the student has of the data set."""
        return self.shares.student

    @property
    def training(self) -> Optimisation:
        """How the student is trained."""
        return self.distillation.student.training

    def build(self, spec: ModelSpec, *, purpose: str) -> nn.Module:
        """A fresh model on the device, initialised from the stream of this purpose."""
        fresh = models.build(
            spec,
            shape=self.data.shape,
            classes=self.task.classes,
            generator=self.stream(f"{purpose} model"),
            task=self.task,
        )
        return fresh.to(self.device)

    def plain_student(self) -> nn.Module:
        """A fresh student as its specification says; `student` begins with the same weights."""
        return self.build(self.distillation.student.model, purpose="student")

    def stream(self, purpose: str) -> torch.Generator:
        """A fresh generator for one purpose.

        `"student batches"` shuffles the student's batches, so that the plain student, which is
        compared with, sees them in the same order.
        """
        return rng.stream(self.distillation.seed, purpose=purpose)

    @cached_property
    def teachers_task(self) -> Task:
        """What is asked of the first teacher."""
        return task_seen(self.distillation, self.task, self.shares.teachers[0])

    @property
    def shown(self) -> Rows:
        """What the first teacher sees of the student's training records."""
        return self.shares.shown[0] if self.shares.shown else self.data.train.x

    def terms(self, student: nn.Module, teacher: nn.Module, *, purpose: str = "student") -> Terms:
        """What `[[knowledge]]` adds to the loss, of this student and this, the first teacher."""
        built = terms.build(
            self.distillation.knowledge,
            inspect_layers(student, self.data.shape),
            inspect_layers(teacher, self.shares.teachers[0].shape),
            self.stream(f"{purpose} adapters"),
            self.task.likelihood,
            self.task.vocabulary,
        )
        return built.to(self.device)
