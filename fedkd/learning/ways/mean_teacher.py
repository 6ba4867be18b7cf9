"""The mean teacher: a student agrees with the running mean of its own weights, labels or not.

Tarvainen & Valpola 2017, arXiv:1703.01780.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd import devices
from fedkd.config import Frozen, Optimisation
from fedkd.data.types import Dataset, Samples
from fedkd.errors import ConfigError
from fedkd.knowledge import parameter
from fedkd.learning import augment, optim
from fedkd.learning.loop import OnEpoch, descend, epochs
from fedkd.learning.moves import cropped
from fedkd.learning.ways.base import Splits, StudentRun
from fedkd.models import call
from fedkd.rows import Rows, one
from fedkd.tasks import Likelihood, Task
from fedkd.tasks.likelihoods.categorical import CATEGORICAL


class MeanTeacher(Frozen):
    """Parameters of `mean-teacher`."""

    labelled: int | None = Field(default=None, ge=2)
    """How many training samples keep their label, drawn by the seed; all unless given. The other
    inputs are used all the same."""
    weight: float = Field(default=100.0, ge=0)
    """Of consistency, once it has risen; the authors' for CIFAR-10 and SVHN."""
    ramp: float = Field(default=0.2, ge=0, le=1)
    """The share of all epochs in which the weight rises."""
    decay: float = Field(default=0.99, ge=0, lt=1)
    """Of the mean: it goes back about 1 / (1 - decay) steps."""
    noise: float = Field(default=0.15, ge=0)
    """Standard deviation of the noise on inputs, drawn for student and teacher apart."""
    shift: int = Field(default=2, ge=0)
    """Images: the most pixels by which a view is moved; 0 for rows of features."""


def train(
    student: nn.Module,
    samples: Samples,
    optimisation: Optimisation,
    generator: torch.Generator,
    *,
    unlabelled: Rows | None = None,
    view: Callable[[Tensor, torch.Generator], Tensor],
    weight: Callable[[float], float],
    decay: float,
    likelihood: Likelihood = CATEGORICAL,
    on_epoch: OnEpoch | None = None,
    teacher: nn.Module | None = None,
) -> nn.Module:
    """Minimise NLL + weight * consistency with the mean teacher, which is what comes out.

    For classes NLL is cross-entropy and consistency the mean squared difference of probabilities;
    for other answers consistency is the likelihood's divergence, for numbers a squared difference
    too.

    Student and teacher see views of their own of each batch. Where there are unlabelled inputs, as
    many of them go with every batch and count for consistency alone, so that a student has as many
    steps, and sees each label as often, as without them. The teacher answers in evaluation mode,
    and BatchNorm's running statistics are averaged as the weights are (the authors let it normalise
    by its batch). The decay is `parameter.early_decay`, steps counted from 1 as in their code.

    Args:
        student: trained in place; it ends in evaluation mode.
        samples: inputs and targets.
        optimisation: see `loop.fit`.
        generator: the source of shuffles and views.
        unlabelled: inputs (M, *shape) without labels; None: none.
        view: inputs (N, *shape) and the source of all draws to another view of them.
        weight: of consistency, when so many epochs are done; see `rising`.
        decay: in [0, 1).
        likelihood: of targets by answers; that of classes unless given.
        on_epoch: see `loop.fit`.
        teacher: becomes the mean teacher; None: a copy of the student does.

    Returns:
        The teacher, in evaluation mode.

    Raises:
        FederationError: training diverged.
    """
    teacher = copy.deepcopy(student) if teacher is None else teacher
    teacher.load_state_dict(student.state_dict())
    teacher.eval().requires_grad_(requires_grad=False)
    optimiser = optim.build(student.parameters(), optimisation)
    beside = None if unlabelled is None else _endless(unlabelled, generator)
    agree = (
        parameter.consistency
        if likelihood is CATEGORICAL
        else partial(likelihood.divergence, temperature=1.0)
    )
    steps, device = 0, devices.of(student)

    def step(position: float, batch: Sequence[Tensor]) -> float:
        nonlocal steps
        x, y = batch[0], batch[1].to(device)
        if beside is not None:
            x = torch.cat([x, *(next(beside) for _ in y)])
        told = call.answer(teacher, view(x, generator))

        def loss() -> Tensor:
            answer = call.answer(student, view(x, generator))
            agreement = agree(answer, told).mean()
            return likelihood.mean_nll(answer[: len(y)], y) + weight(position) * agreement

        value = descend(optimiser, loss, optimisation, position)
        steps += 1
        now = parameter.early_decay(steps, decay=decay)
        teacher.load_state_dict(
            parameter.ema(teacher.state_dict(), student.state_dict(), decay=now)
        )
        return value

    student.train()
    epochs((samples.x, samples.y), step, optimisation, generator, on_epoch=on_epoch)
    student.eval()
    return teacher


def rising(position: float, *, weight: float, epochs: float) -> float:
    """The weight times exp(-5 (1 - t)^2), t rising from 0 to 1 over the first `epochs`."""
    left = 1 - min(position / epochs, 1.0) if epochs else 0.0
    return weight * math.exp(-5 * left**2)


def _endless(x: Rows, generator: torch.Generator) -> Iterator[Tensor]:
    """M inputs one by one (1, *shape), for ever, each pass in a new order."""
    while True:
        for row in torch.split(torch.randperm(len(x), generator=generator), 1):
            yield one(x[row])


def share(
    whole: Dataset, _teachers: int, params: MeanTeacher, generator: torch.Generator
) -> Splits:
    """The student has those samples that keep their labels, in their order.

    Raises:
        ConfigError: more are to keep it than there are.
    """
    if params.labelled is not None and params.labelled > len(whole.train):
        raise ConfigError(
            f"way.labelled is {params.labelled}: expected at most the {len(whole.train)} training "
            "samples that there are"
        )
    kept = torch.randperm(len(whole.train), generator=generator)[: params.labelled]
    own = replace(whole, train=whole.train.subset(kept.sort().values))
    return Splits(whole, own, ())


def check(task: Task, params: MeanTeacher) -> None:
    """Refuse to shift what is no image, or that of which each place is asked about."""
    if params.shift and len(task.inputs) != 3:
        raise ConfigError(
            f"way.shift is {params.shift}: inputs of shape {task.inputs} cannot be shifted, "
            "expected 0"
        )
    if params.shift and len(task.answer) > 1:
        raise ConfigError(
            f"way.shift is {params.shift}: two views that are shifted apart have answers "
            f"{task.answer} of unlike places, which cannot be compared; expected 0"
        )


def learn(run: StudentRun, params: MeanTeacher) -> nn.Module:
    """The way `mean-teacher`: the mean of the student's weights; the rest of the set unlabelled."""
    everything = run.shares.whole.train.x
    some = len(run.data.train) < len(everything)
    student, teacher = run.student(), run.student()

    def view(x: Tensor, generator: torch.Generator) -> Tensor:
        if params.shift:
            x = cropped(x, generator, padding=params.shift).of_images(x)
        return augment.noisy(x, generator, std=params.noise)

    run.stage(
        "student",
        teacher,
        lambda on_epoch: train(
            student,
            run.data.train,
            run.training,
            run.stream("student batches"),
            unlabelled=everything if some else None,
            view=view,
            weight=partial(rising, weight=params.weight, epochs=params.ramp * run.training.epochs),
            decay=params.decay,
            likelihood=run.task.likelihood,
            on_epoch=on_epoch,
            teacher=teacher,
        ),
        epochs=run.training.epochs,
    )
    return teacher
