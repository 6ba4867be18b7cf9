"""Learning from a teacher that is finished: from its answers, or from whatever it shows."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.learning import optim
from fedkd.learning.loop import OnEpoch, fit
from fedkd.learning.terms import Terms
from fedkd.models.layers import LOGITS, show

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


def teach(
    student: nn.Module,
    teacher: nn.Module,
    terms: Terms,
    samples: Samples,
    optimisation: Optimisation,
    generator: torch.Generator,
    *,
    labels: float = 1.0,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """Minimise `labels` * cross-entropy + `terms`, with a teacher that stays as it is.

    Args:
        student: trained in place.
        teacher: in evaluation mode.
        terms: what is passed on; what is learned with them is trained too.
        samples: inputs and labels.
        optimisation: see `loop.fit`.
        generator: see `loop.fit`.
        labels: the weight of cross-entropy, at least 0.
        on_epoch: see `loop.fit`.

    Returns:
        The mean loss of each epoch.

    Raises:
        FederationError: training diverged.
    """

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            told = show(teacher, x, terms.teacher)
        seen = show(model, x, terms.student)
        return labels * F.cross_entropy(seen[LOGITS], y) + terms(seen, told, y)

    learned = [*student.parameters(), *terms.learned.parameters()]
    return fit(
        student,
        (samples.x, samples.y),
        loss,
        optimisation,
        generator,
        optimiser=optim.build(learned, optimisation),
        on_epoch=on_epoch,
    )
