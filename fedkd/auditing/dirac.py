"""Dirac canaries: records whose gradient has one entry of its own, through the real training.

A canary's loss is the training's own loss and a large multiple of one weight that nobody else
touches. Its clipped gradient is then nearly that one coordinate, so that the noisy sum says of each
canary, in each step and apart from all others, what the mechanism lets through: Nasr et al. 2023,
arXiv:2302.07956; Steinke et al. 2023, arXiv:2305.08846.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fedkd import devices
from fedkd.auditing.verdicts import Shortfall, shortfall
from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.learning import optim
from fedkd.learning.dp import sgd
from fedkd.learning.dp.sgd import Noise
from fedkd.models.call import answer
from fedkd.rows import concat, shape_of, whole
from fedkd.tasks import Likelihood
from fedkd.tasks.likelihoods.categorical import CATEGORICAL

THREAT = "white box: sees every noisy gradient, and may insert records"
_LOUD = 1000.0
"""A canary's own gradient over the clip: what is left of its model's gradient is a thousandth."""
_IDEAL = 40_000
"""Canaries that are only drawn, to know what those in the training should show."""


class WithCanaries(nn.Module):
    """A model, and beside it one weight for each canary.

    Inputs are rows (N, D + m): a sample, flattened, and which canary it is, one-hot, or zeros.
    Outputs are (N, W + 1): the answer, flat, such as logits, and the canary's own weight times
    `loud`.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, ...], canaries: int, loud: float):
        super().__init__()
        self.model = model
        self.canary = nn.Linear(canaries, 1, bias=False)
        nn.init.zeros_(self.canary.weight)
        self._shape = shape
        self._loud = loud
        self._answer: tuple[int, ...] = ()

    def forward(self, rows: Tensor) -> Tensor:
        """(N, D + m) -> (N, W + 1)."""
        marks = rows[:, -self.canary.in_features :]
        x = rows[:, : -self.canary.in_features].reshape(len(rows), *self._shape)
        said = answer(self.model, x)
        self._answer = tuple(said.shape[1:])
        return torch.cat([said.flatten(1), self._loud * self.canary(marks)], dim=1)

    def loss(self, outputs: Tensor, y: Tensor, *, likelihood: Likelihood) -> Tensor:
        """The NLL of targets, as teachers learn by, and the canary's weight: (N,)."""
        answers = outputs[:, :-1].reshape(len(outputs), *self._answer)
        return likelihood.nll(answers, y) + outputs[:, -1]


@dataclass(frozen=True, slots=True)
class Observed:
    """Canaries, and what an attacker makes of them."""

    scores: NDArray[np.float64]
    """(m,), higher for members."""
    included: NDArray[np.bool_]
    """(m,)."""
    ideal: tuple[NDArray[np.float64], NDArray[np.float64]]
    """Scores of as many members as others, had each had the very noise and sampling claimed."""

    @property
    def members(self) -> NDArray[np.float64]:
        """Scores of the canaries that were included."""
        return self.scores[self.included]

    @property
    def others(self) -> NDArray[np.float64]:
        """Scores of those that were not."""
        return self.scores[~self.included]

    def shortfall(self, what: str) -> Shortfall | None:
        """See `verdicts.shortfall`."""
        return shortfall(what, (self.members, self.others), self.ideal)


def observe(
    model: nn.Module,
    samples: Samples,
    optimisation: Optimisation,
    noise: Noise,
    *,
    canaries: int,
    generator: torch.Generator,
    rounds: int = 1,
    like: Tensor | None = None,
    likelihood: Likelihood = CATEGORICAL,
) -> Observed:
    """Train with canaries among the samples, by `private.train`, and score each canary.

    The score is the log likelihood ratio of all that was released about the canary, for the noise
    and the sampling that are claimed: the most powerful test if the claim is true.

    Args:
        model: trained in place; what DP-SGD cannot protect is refused.
        samples: N >= 1, among which the canaries hide.
        optimisation: as teachers are trained; inputs are not changed.
        noise: what is claimed of each step.
        canaries: m >= 2.
        generator: which canaries are included, each by a fair coin.
        rounds: how often the training is run.
        like: public inputs (M, *shape) that the model takes, see `private.train`.
        likelihood: by which teachers learn.

    Raises:
        ConfigError: the model cannot be protected.
        FederationError: training diverged.
    """
    included = torch.rand(canaries, generator=generator) < 0.5
    shape = shape_of(samples.x)
    audited = WithCanaries(model, shape, canaries, _LOUD * noise.clip).to(devices.of(model))
    rows = _rows(samples, included)
    optimiser = optim.build(audited.parameters(), optimisation)
    seen = _Seen(audited.canary, noise)
    optimiser.register_step_pre_hook(seen.note)
    if like is not None:
        like = F.pad(like.flatten(1).float(), (0, canaries))
    loss = partial(audited.loss, likelihood=likelihood)
    learn = partial(sgd.train, loss=loss, optimiser=optimiser, like=like)
    # A change of inputs would change marks with them, and so hide canaries from the attacker.
    optimisation = optimisation.model_copy(update={"augment": ()})
    for _ in range(rounds):
        learn(audited, rows, optimisation, noise)
    member = torch.arange(_IDEAL) % 2 == 0
    ideal = _ideal(member, noise, seen.steps, generator)
    claimed = ideal[member].numpy(), ideal[~member].numpy()
    return Observed(seen.ratios.numpy(), included.numpy(), claimed)


def _ideal(included: Tensor, noise: Noise, steps: int, generator: torch.Generator) -> Tensor:
    """Scores of canaries of which nothing is released but what is claimed, (m,)."""
    ratios = torch.zeros(len(included), dtype=torch.float64)
    for _ in range(steps):
        draws = torch.rand(len(included), generator=generator)
        signal = (included & (draws < noise.sample_rate)).double()
        normal = torch.randn(len(included), dtype=torch.float64, generator=generator)
        ratios += _ratio(signal + noise.noise_multiplier * normal, noise)
    return ratios


def _ratio(released: Tensor, noise: Noise) -> Tensor:
    """The log likelihood ratio of what one step released of each canary, over the clip."""
    once = (2 * released - 1) / (2 * noise.noise_multiplier**2)
    rate = torch.tensor(noise.sample_rate, dtype=torch.float64)
    return torch.logaddexp(torch.log1p(-rate), torch.log(rate) + once)


class _Seen:
    """What the noisy gradients said of each canary so far."""

    def __init__(self, canary: nn.Linear, noise: Noise) -> None:
        self._weight = canary.weight
        self._noise = noise
        self.ratios = torch.zeros(canary.in_features, dtype=torch.float64)
        self.steps = 0

    def note(self, *_: object) -> None:
        """Read one step's gradient, before the optimiser does."""
        gradient = self._weight.grad
        if gradient is None:
            return
        noise = self._noise
        released = gradient[0].cpu().double() * noise.batch_size / noise.clip
        self.ratios += _ratio(released, noise)
        self.steps += 1


def _rows(samples: Samples, included: Tensor) -> Samples:
    """The samples without a mark, then the included canaries, each with its own."""
    count = len(included)
    chosen = included.nonzero().flatten()
    carriers = samples.subset(chosen % len(samples))
    x = whole(concat([samples.x, carriers.x])).flatten(1).float()  # token numbers are exact
    marks = torch.zeros(len(x), count)
    marks[len(samples) + torch.arange(len(chosen)), chosen] = 1.0
    return Samples(torch.cat([x, marks], dim=1), torch.cat([samples.y, carriers.y]))
