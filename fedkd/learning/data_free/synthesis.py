"""Learning without data: a generator makes up batches that are worth learning from."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedkd import devices
from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.errors import ConfigError, FederationError
from fedkd.learning import offline, optim
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.evaluate import evaluating
from fedkd.learning.loop import OnEpoch
from fedkd.learning.teacher_statistics import Observation
from fedkd.models import call
from fedkd.tasks import Task


def check(task: Task, _params: object) -> None:
    """Refuse to make up what is no image.

    Raises:
        ConfigError: the inputs are rows.
    """
    if len(task.inputs) != 3:
        raise ConfigError(
            f"data-free distillation cannot generate inputs of shape {task.inputs}: expected "
            "images (channels, height, width); for rows of features choose a way that has data"
        )


@dataclass(frozen=True, eq=False)
class Views:
    """What an objective may look at; all but the labels carry gradients to the generator."""

    x: Tensor
    """Generated inputs (N, *shape)."""
    y: Tensor
    """The labels that they should have, int64 (N,)."""
    teachers: Observation
    """Of K teachers: `logits` (K, N, C), `bn` (K,), `activation` (K, N)."""
    ensemble: Tensor
    """The ensemble's logits (N, C)."""
    student: Tensor
    """The student's logits (N, C)."""


Objective = Callable[[Views], Tensor]
"""The scalar that synthesis minimises."""


@dataclass(frozen=True, eq=False)
class Synthetic:
    """A synthetic batch, on the CPU."""

    x: Tensor
    """float32 (N, *shape)."""
    y: Tensor
    """The labels that the generator aimed at, int64 (N,)."""
    losses: tuple[float, ...]
    """The objective before each step."""


def synthesise(
    generator_net: nn.Module,
    ensemble: Ensemble,
    student: nn.Module,
    objective: Objective,
    *,
    classes: int,
    steps: int,
    batch_size: int,
    latent: int,
    learning_rate: float,
    rng: torch.Generator,
) -> Synthetic:
    """Fit a generator and one batch of its inputs together; return the best batch on the way.

    Zhang et al. 2022, DENSE, arXiv:2112.12371: z ~ N(0, 1) and uniform labels are drawn once, then
    Adam (0.5, 0.999) moves z and the generator's parameters. The student is in evaluation mode
    throughout and receives no gradient; its own mode is restored.

    Args:
        generator_net: called with z (N, latent) and labels (N,); trained in place.
        ensemble: the teachers, on the student's device, as is the generator.
        student: what the objective compares the teachers with.
        objective: such as `objectives.dense`, its weights bound by `functools.partial`.
        classes: labels are drawn from 0 to classes - 1.
        steps: how many, at least 1.
        batch_size: N, at least 2.
        latent: length of z.
        learning_rate: of Adam.
        rng: the source of z and the labels.

    Raises:
        FederationError: the objective is no longer finite.
    """
    device = devices.of(student)
    y = torch.randint(classes, (batch_size,), generator=rng).to(device)
    z = torch.randn(batch_size, latent, generator=rng).to(device).requires_grad_()
    parameters = [z, *generator_net.parameters()]
    optimiser = optim.eager(torch.optim.Adam)(parameters, lr=learning_rate, betas=(0.5, 0.999))
    generator_net.train()
    losses: list[float] = []
    best = z
    with evaluating(student):
        for step in range(steps):
            x = generator_net(z, y)
            teachers = ensemble.observe(x)
            answer = ensemble.average(teachers.logits)
            loss = objective(Views(x, y, teachers, answer, call.answer(student, x)))
            losses.append(loss.item())
            if not torch.isfinite(loss):
                raise FederationError(
                    f"synthesis diverged: the objective is {losses[-1]} at step {step + 1}, "
                    f"expected a finite number; lower the learning rate (now {learning_rate})"
                )
            if losses[-1] == min(losses):
                best = x.detach()
            optimiser.zero_grad(set_to_none=True)
            loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
            optimiser.step()
    return Synthetic(best.contiguous().cpu(), y.cpu(), tuple(losses))


def draw_labels(counts: Tensor, size: int, rng: torch.Generator) -> Tensor:
    """Labels (size,) by how many samples of each class there are, (C,); if none, any."""
    shares = counts.double()
    return torch.multinomial(
        shares if shares.any() else torch.ones_like(shares),
        size,
        replacement=True,
        generator=rng,
    )


def learn_from_pool(
    student: nn.Module,
    ensemble: Ensemble,
    make: Callable[[int], Synthetic],
    loss: offline.Loss,
    optimisation: Optimisation,
    rng: Callable[[int], torch.Generator],
    *,
    threads: int | None = None,
    on_epoch: OnEpoch | None = None,
) -> Samples:
    """Each epoch make a batch, add it to the pool, and pass once over the pool.

    Args:
        student: fitted to the ensemble's answers in place, by one optimiser throughout.
        ensemble: answers each batch once.
        make: the batch of an epoch, from 1, such as by `synthesise`.
        loss: student logits and the ensemble's; see `offline.Loss`.
        optimisation: of the student; `epochs` is the number of batches, and a schedule is that of
            one pass.
        rng: the source of an epoch's shuffles.
        threads: see `loop.fit`.
        on_epoch: see `loop.fit`.

    Returns:
        The pool, with the labels that were aimed at.

    Raises:
        FederationError: training diverged.
    """
    optimiser = optim.build(student.parameters(), optimisation)
    once = optimisation.model_copy(update={"epochs": 1})
    batches: list[Synthetic] = []
    answers: list[Tensor] = []
    for epoch in range(1, optimisation.epochs + 1):
        batches.append(make(epoch))
        answers.append(ensemble.answer(batches[-1].x))
        pool = torch.cat([batch.x for batch in batches])
        [value] = offline.distil(
            student,
            pool,
            torch.cat(answers),
            loss,
            once,
            rng(epoch),
            optimiser=optimiser,
            threads=threads,
        )
        if on_epoch is not None:
            on_epoch(epoch, value)
    return Samples(pool, torch.cat([batch.y for batch in batches]))
