"""DAFL: one generator and the student learn together from a teacher, without data.

Chen et al. 2019, arXiv:1904.01186.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd import devices
from fedkd.config import Frozen, Optimisation
from fedkd.errors import FederationError
from fedkd.learning import optim
from fedkd.learning.data_free.synthesis import Objective, Views
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.evaluate import evaluating
from fedkd.learning.loop import OnEpoch, descend, epochs
from fedkd.learning.offline import Loss
from fedkd.models import call


class DataFreeLearning(Frozen):
    """Parameters of `dafl`; the student's epochs, rate and optimiser are those of its training."""

    steps: int = Field(default=120, ge=1)
    """Batches in an epoch; as published."""
    batch_size: int = Field(default=128, ge=2)
    """Synthetic samples in a batch. Paper: 512."""
    latent: int = Field(default=100, ge=1)
    """The length of the generator's input."""
    width: int = Field(default=32, ge=1)
    """The generator's channels before its last layer, twice as many before those."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of the generator, by Adam."""
    activation: float = Field(default=0.1, ge=0)
    """The weight of features that are excited."""
    entropy: float = Field(default=5.0, ge=0)
    """The weight of balanced classes, in nats; the authors' 5 is for base 10, 2.2 in nats."""
    temperature: float = Field(default=1.0, gt=0)
    """Of distillation."""


def train(
    student: nn.Module,
    ensemble: Ensemble,
    generator_net: nn.Module,
    objective: Objective,
    loss: Loss,
    optimisation: Optimisation,
    rng: torch.Generator,
    *,
    classes: int,
    steps: int,
    latent: int,
    learning_rate: float,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """On each batch of fresh noise the generator takes a step, then the student.

    While the objective looks at the student, it is in evaluation mode and no gradient reaches it;
    the student learns from the images as constants. The teachers stay as they are.

    Args:
        student: trained in place; it ends in evaluation mode.
        ensemble: the teacher or teachers, on the student's device, as is the generator.
        generator_net: called with z (N, latent) and labels (N,); trained in place.
        objective: what the generator minimises, such as `objectives.dafl`.
        loss: what the student minimises, of its logits and the ensemble's; see `offline.Loss`.
        optimisation: of the student; an epoch is `steps` batches.
        rng: the source of z and the labels.
        classes: labels are drawn from 0 to classes - 1.
        steps: batches in an epoch, at least 1.
        latent: length of z.
        learning_rate: of the generator, by Adam.
        on_epoch: see `loop.fit`.

    Returns:
        The student's mean loss of each epoch.

    Raises:
        FederationError: the objective or the student's loss is no longer finite.
    """
    maker = optim.eager(torch.optim.Adam)(generator_net.parameters(), lr=learning_rate)
    learner = optim.build(student.parameters(), optimisation)
    size, device = optimisation.batch_size, devices.of(student)

    def step(position: float, _batch: Sequence[Tensor]) -> float:
        z = torch.randn(size, latent, generator=rng).to(device)
        y = torch.randint(classes, (size,), generator=rng).to(device)
        x = generator_net(z, y)
        teachers = ensemble.observe(x)
        answer = ensemble.average(teachers.logits)
        with evaluating(student):
            aim = objective(Views(x, y, teachers, answer, call.answer(student, x)))
        if not torch.isfinite(aim):
            raise FederationError(
                f"synthesis diverged: the objective is {aim.item()}, expected a finite number; "
                f"lower the generator's learning rate (now {learning_rate})"
            )
        maker.zero_grad(set_to_none=True)
        aim.backward(inputs=list(generator_net.parameters()))  # type: ignore[no-untyped-call]
        maker.step()
        seen, told = x.detach(), answer.detach()
        return descend(
            learner, lambda: loss(call.answer(student, seen), told).mean(), optimisation, position
        )

    generator_net.train()
    student.train()
    losses = epochs((torch.empty(steps * size),), step, optimisation, rng, on_epoch=on_epoch)
    student.eval()
    return losses
