"""Learning from a teacher's answers that are already computed."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedkd.config import Optimisation
from fedkd.learning.loop import OnEpoch, fit

Loss = Callable[[Tensor, Tensor], Tensor]
"""Student logits (N, C) and targets (N, C) to a scalar or a value per sample (N,)."""


def distil(
    student: nn.Module,
    x: Tensor,
    targets: Tensor,
    loss: Loss,
    optimisation: Optimisation,
    generator: torch.Generator,
    *,
    optimiser: torch.optim.Optimizer | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """Fit the student's logits on `x` to `targets`, row by row; the rest is as in `loop.fit`.

    Args:
        student: trained in place.
        x: inputs (N, *shape).
        targets: (N, C): logits or probabilities, whatever `loss` compares logits with.
        loss: such as `knowledge.label.mae`.
        optimisation: see `loop.fit`.
        generator: see `loop.fit`.
        optimiser: see `loop.fit`.
        on_epoch: see `loop.fit`.

    Returns:
        The mean loss of each epoch.

    Raises:
        ValueError: inputs and targets have no rows, or not equally many.
        FederationError: training diverged.
    """
    return fit(
        student,
        (x, targets),
        lambda model, inputs, answers: loss(model(inputs), answers),
        optimisation,
        generator,
        optimiser=optimiser,
        on_epoch=on_epoch,
    )
