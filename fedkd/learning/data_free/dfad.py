"""DFAD: a generator looks for inputs on which teacher and student differ; no labels are needed.

Fang et al. 2019, arXiv:1912.11006.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd import devices
from fedkd.config import Frozen, Optimisation
from fedkd.errors import FederationError
from fedkd.knowledge import label
from fedkd.learning import optim
from fedkd.learning.evaluate import evaluating
from fedkd.learning.loop import OnEpoch, descend, epochs
from fedkd.models import call


class Adversarial(Frozen):
    """Parameters of `dfad`; the student's epochs, rate and optimiser are those of its training."""

    steps: int = Field(default=50, ge=1)
    """Turns in an epoch; as published."""
    imitations: int = Field(default=5, ge=1)
    """Steps of the student in a turn, before the one of the generator; as published."""
    batch_size: int = Field(default=64, ge=2)
    """Synthetic samples in a step; as published."""
    latent: int = Field(default=100, ge=1)
    """The length of the generator's input."""
    width: int = Field(default=32, ge=1)
    """The generator's channels before its last layer, twice as many before those."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of the generator, by Adam; as published."""


def train(
    student: nn.Module,
    teacher: nn.Module,
    maker: nn.Module,
    params: Adversarial,
    optimisation: Optimisation,
    rng: torch.Generator,
    *,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """In turns the student comes nearer to the teacher on made inputs, and the generator away.

    Both look at the mean absolute difference of answers, which has a gradient wherever they differ,
    of classes and of numbers alike. The generator minimises -log(1 + difference), as the authors do
    for dense answers, so that it does not run away.

    Args:
        student: trained in place; it ends in evaluation mode.
        teacher: frozen and in evaluation mode, on the student's device, as is the generator.
        maker: called with z (N, latent); trained in place.
        params: see `Adversarial`.
        optimisation: of the student; an epoch is `params.steps` turns.
        rng: the source of z.
        on_epoch: see `loop.fit`.

    Returns:
        The student's mean difference of each epoch, over its steps.

    Raises:
        FederationError: a difference is no longer finite.
    """
    opponent = optim.eager(torch.optim.Adam)(maker.parameters(), lr=params.learning_rate)
    learner = optim.build(student.parameters(), optimisation)
    device = devices.of(student)

    def made() -> Tensor:
        x: Tensor = maker(torch.randn(params.batch_size, params.latent, generator=rng).to(device))
        return x

    def imitate(position: float) -> float:
        with torch.no_grad():
            x = made()
            told = call.answer(teacher, x)
        return descend(
            learner,
            lambda: label.mae(call.answer(student, x), told).mean(),
            optimisation,
            position,
        )

    def turn(position: float, _batch: Sequence[Tensor]) -> float:
        value = sum(imitate(position) for _ in range(params.imitations)) / params.imitations
        x = made()
        with evaluating(student):
            gap = label.mae(call.answer(student, x), call.answer(teacher, x)).mean()
        aim = -torch.log1p(gap)
        if not torch.isfinite(aim):
            raise FederationError(
                f"synthesis diverged: teacher and student differ by {gap.item()}, expected a "
                f"finite number; lower way.learning_rate (now {params.learning_rate})"
            )
        opponent.zero_grad(set_to_none=True)
        aim.backward(inputs=list(maker.parameters()))  # type: ignore[no-untyped-call]
        opponent.step()
        return value

    maker.train()
    student.train()
    turns = torch.empty(params.steps * optimisation.batch_size)
    losses = epochs((turns,), turn, optimisation, rng, on_epoch=on_epoch)
    student.eval()
    return losses
