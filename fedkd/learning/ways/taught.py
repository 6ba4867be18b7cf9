"""Learning from one finished teacher: what it shows, or a block of it, beside labels."""

from functools import partial
from typing import Any

import torch
from pydantic import Field
from torch import nn

from fedkd.config import Frozen
from fedkd.learning import offline
from fedkd.learning.dp import distil
from fedkd.learning.loop import OnEpoch
from fedkd.learning.ways.base import StudentRun
from fedkd.learning.ways.injection import Place, inject


class FromLabels(Frozen):
    """Parameters of a way that learns from labels too."""

    labels: float = Field(default=1.0, ge=0)
    """The weight of the loss on the labels: cross-entropy for classes."""


class Injection(FromLabels):
    """Parameters of `injection`."""

    layer: str
    """The student's layer that gives way to the block, or that the block follows."""
    block: str
    """The teacher's block: the dotted name of a layer."""
    place: Place = "replace"
    trainable: bool = False
    """Whether the block learns too; else it stays as the teacher has it."""


def injected(
    student: nn.Module,
    teachers: tuple[nn.Module, ...],
    params: Injection,
    shape: tuple[int, ...],
    generator: torch.Generator,
) -> nn.Module:
    """What `injection` makes of a fresh student: see `Way.remake`."""
    chosen = params.model_dump(exclude={"labels"})
    return inject(student, teachers[0], shape, generator, **chosen)


def learn(run: StudentRun, params: FromLabels) -> nn.Module:
    """By a finished teacher and by labels, with the forms of `[[knowledge]]`."""
    student, teacher = run.student(), run.teachers[0]

    def train(on_epoch: OnEpoch) -> None:
        terms = run.terms(student, teacher)
        data, how = run.data.train, run.training
        ends: dict[str, Any] = {
            "labels": params.labels,
            "likelihood": run.task.likelihood,
            "on_epoch": on_epoch,
        }
        if (paid := run.private) is None:
            batches = run.stream("student batches")
            offline.teach(student, teacher, terms, data, how, batches, **ends)
            return
        ends["like"] = run.data.test.x
        noisy = partial(distil.teach, student, teacher, terms, data, how, paid.noise, **ends)
        paid.pay("student", student, noisy)

    run.stage("student", student, train, epochs=run.training.epochs)
    return student
