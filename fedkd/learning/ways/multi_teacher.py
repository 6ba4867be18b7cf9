"""Learning from labels and from several teachers, whatever way they come to a consensus."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Dirichlet, Frozen, Optimisation
from fedkd.data import partition
from fedkd.data.types import Dataset, Samples
from fedkd.learning import consensus, evaluate
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.loop import OnEpoch, fit
from fedkd.learning.ways.base import Splits, StudentRun
from fedkd.models import call
from fedkd.tasks import Ask, Likelihood
from fedkd.tasks.likelihoods.categorical import CATEGORICAL

Consensus = Callable[[Tensor], Tensor]
"""Answers (K, N, *A) of K teachers to one (N, *A), asked anew for each batch."""


class MultiTeacher(Frozen):
    """Parameters of `multi-teacher`."""

    average: Literal["logits", "probabilities", "confidence", "class", "random"] = "probabilities"
    """The mean of answers or of probabilities; a mean in which the sure weigh more, or for each
    class those who have seen it; or one teacher, drawn for each batch."""
    skew: float | None = Field(default=None, gt=0)
    """Deals training samples to the teachers, per class by Dirichlet(skew); else each has all."""
    labels: float = Field(default=1.0, ge=0)
    """The weight of the loss on the labels: cross-entropy for classes."""
    weight: float = Field(default=1.0, ge=0)
    """The weight of the divergence from the teachers."""
    temperature: float = Field(default=4.0, gt=0)
    """Of that divergence."""


def asks(params: MultiTeacher) -> dict[Ask, str]:
    """What is asked of the task, and by which parameter."""
    asked: dict[Ask, str] = {}
    if params.skew is not None:
        asked["classes"] = "way.skew"
    if params.average not in ("logits", "random"):
        ask: Ask = "classes" if params.average == "class" else "categorical"
        asked[ask] = f"way.average = {params.average!r}, unlike 'logits' and 'random',"
    return asked


def teach(
    student: nn.Module,
    told: Tensor,
    agree: Consensus,
    samples: Samples,
    optimisation: Optimisation,
    generator: torch.Generator,
    *,
    labels: float,
    weight: float,
    temperature: float,
    likelihood: Likelihood = CATEGORICAL,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """Minimise labels * NLL + weight * the divergence from the consensus.

    For classes cross-entropy, and T^2 KL(consensus || student).

    Args:
        student: trained in place.
        told: what K teachers say of N samples, (K, N, *A); see `Ensemble.logits`.
        agree: see `Consensus` and `fedkd.learning.consensus`.
        samples: N inputs and targets.
        optimisation: see `loop.fit`.
        generator: see `loop.fit`.
        labels: at least 0.
        weight: at least 0.
        temperature: T > 0.
        likelihood: of targets by answers; that of classes unless given.
        on_epoch: see `loop.fit`.

    Returns:
        The mean loss of each epoch.

    Raises:
        FederationError: training diverged.
    """

    def loss(model: nn.Module, x: Tensor, y: Tensor, told: Tensor) -> Tensor:
        answer = call.answer(model, x)
        agreed = agree(told.transpose(0, 1))
        divergence = likelihood.divergence(answer, agreed, temperature=temperature)
        return labels * likelihood.nll(answer, y) + weight * divergence

    rows = (samples.x, samples.y, told.transpose(0, 1))
    return fit(student, rows, loss, optimisation, generator, on_epoch=on_epoch)


def share(
    whole: Dataset, teachers: int, params: MultiTeacher, generator: torch.Generator
) -> Splits:
    """The student has all samples, each teacher all or its own part."""
    if params.skew is None:
        return Splits(whole, whole, (whole,) * teachers)
    parts = partition.split(
        Dirichlet(scheme="dirichlet", alpha=params.skew),
        count=len(whole.train),
        strata=whole.train.y,
        groups=None,
        clients=teachers,
        generator=generator,
    )
    dealt = (replace(whole, train=whole.train.subset(part)) for part in parts)
    return Splits(whole, whole, tuple(dealt))


def agreement(run: StudentRun, params: MultiTeacher) -> Consensus:
    """The consensus that the parameters name."""
    if params.average == "random":
        return partial(consensus.one_of, generator=run.stream("turns"))
    if params.average == "class":
        classes = run.data.classes
        counts = [torch.bincount(d.train.y, minlength=classes) for d in run.shares.teachers]
        return partial(consensus.by_class, counts=torch.stack(counts))
    if params.average == "logits":
        return consensus.of_task(run.task.likelihood)
    return partial(consensus.average, of=params.average)


def _told(run: StudentRun) -> Tensor:
    """What the teachers say of the student's training records, (K, N, *A)."""
    if not run.shares.shown:
        with Ensemble(run.teachers) as ensemble:
            return ensemble.logits(run.data.train.x)
    pairs = zip(run.teachers, run.shares.shown, strict=True)
    return torch.stack([evaluate.answers(teacher, x) for teacher, x in pairs])


def learn(run: StudentRun, params: MultiTeacher) -> nn.Module:
    """The way `multi-teacher`."""
    student, samples = run.student(), run.data.train

    def train(on_epoch: OnEpoch) -> None:
        told = _told(run)
        teach(
            student,
            told,
            agreement(run, params),
            samples,
            run.training,
            run.stream("student batches"),
            labels=params.labels,
            weight=params.weight,
            temperature=params.temperature,
            likelihood=run.task.likelihood,
            on_epoch=on_epoch,
        )

    run.stage("student", student, train, epochs=run.training.epochs)
    return student
