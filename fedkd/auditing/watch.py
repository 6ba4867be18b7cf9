"""A watched training by DP-SGD: who takes part in each step, and what each step releases."""

import torch
from torch import Tensor, nn

from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.learning import optim
from fedkd.learning.dp import sgd
from fedkd.learning.dp.per_sample import Loss
from fedkd.learning.dp.sgd import Noise
from fedkd.rng import torch_default

WIDTH = 30
"""Of the inputs that watched models have, unless told otherwise."""
ROWS = 400
"""Records that are watched: more than the training looks at together."""
ONCE = Optimisation(epochs=1, learning_rate=0.1, momentum=0.0)


def small() -> nn.Module:
    """A model with parameters of one, two and four axes."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 6, 5)), nn.Conv2d(1, 16, 3), nn.Flatten(), nn.Linear(192, WIDTH)
    )


class Watch:
    """Trains a model on records, each with its number as its target.

    Args:
        noise: how each step is protected.
        optimisation: epochs, among others.
        model: what learns; None: a linear one.
        x: the records' inputs; None: ones.
        rows: how many records, without `x`.
        loss: of outputs and numbers; None: none, so that all that is released is noise.
        like: public inputs that the model takes, see `private.train`.
    """

    def __init__(
        self,
        noise: Noise,
        optimisation: Optimisation = ONCE,
        *,
        model: nn.Module | None = None,
        x: Tensor | None = None,
        rows: int = ROWS,
        loss: Loss | None = None,
        like: Tensor | None = None,
    ) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        """What each step released of each parameter, flat."""
        self._steps: list[Tensor] = []
        self._loss = loss or _nothing
        x = torch.ones(rows, WIDTH) if x is None else x
        self._now = torch.zeros(len(x), dtype=torch.bool)
        samples = Samples(x, torch.arange(len(x)))
        # Always under one and the same global seed, which must make no difference.
        with torch_default(torch.Generator().manual_seed(0)):
            model = model or nn.Linear(WIDTH, WIDTH)
            self._parameters = dict(model.named_parameters())
            optimiser = optim.eager(torch.optim.SGD)(model.parameters(), lr=1e-6)
            optimiser.register_step_pre_hook(self._note)
            sgd.train(
                model,
                samples,
                optimisation,
                noise,
                loss=self._watched,
                optimiser=optimiser,
                like=like,
            )

    @property
    def attendance(self) -> Tensor:
        """Which record each step took: bool (steps, rows)."""
        return torch.stack(self._steps)

    def step(self, number: int) -> Tensor:
        """All that a step released."""
        return torch.cat(list(self.gradients[number].values()))

    def parts(self, scale: float) -> dict[str, Tensor]:
        """What was released over `scale`: each parameter's, each step's, and each in each."""
        steps = [{name: part / scale for name, part in step.items()} for step in self.gradients]
        found = {name: torch.cat([step[name] for step in steps]) for name in steps[0]}
        for number, step in enumerate(steps, start=1):
            found[f"step {number}"] = torch.cat(list(step.values()))
            found |= {f"{name} in step {number}": part for name, part in step.items()}
        return found

    def _watched(self, outputs: Tensor, y: Tensor) -> Tensor:
        self._now[y] = True
        return self._loss(outputs, y)

    def _note(self, *_: object) -> None:
        self.gradients.append(
            {
                name: value.grad.flatten().clone()
                for name, value in self._parameters.items()
                if value.grad is not None
            }
        )
        self._steps.append(self._now)
        self._now = torch.zeros_like(self._now)


def _nothing(outputs: Tensor, _: Tensor) -> Tensor:
    return 0 * outputs.flatten(1).sum(dim=1)
