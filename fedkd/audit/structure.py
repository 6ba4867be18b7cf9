"""What no statistic on canaries can see, found by looking at how the training goes about it.

Each check calls `private.train` with a loss that watches, and says what it expected and found. The
chance that one of them accuses a correct training is below one in a million.
"""

import math
from collections.abc import Sequence

import torch
from scipy import stats
from torch import Tensor, nn

from fedkd.audit.verdicts import Check, Outcome
from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.learning import private
from fedkd.learning.per_sample import Loss
from fedkd.learning.private import Noise
from fedkd.privacy.events import Gaussian
from fedkd.rng import torch_default

_CHANCE = 1e-7
"""Of each accusation of a correct training."""
_ROWS = 400
"""Records that are watched: more than the training looks at together."""
_STEPS = 300
"""Steps that are watched for who takes part."""
_SPREAD = (0.5, 2.0)
"""Shuffled batches spread 0 times as much as independent draws; these stay within, by 5 sigma."""
_QUIET = 1e-9
"""A noise multiplier next to none."""
_ALIKE = 0.5
"""A correlation that independent draws never have."""


def check_training(noise: Noise, optimisation: Optimisation, event: Gaussian) -> list[Check]:
    """Look at DP-SGD as configured, on made-up records and a small linear model.

    Args:
        noise: how each step is protected.
        optimisation: as teachers are trained.
        event: what one training is accounted as.
    """
    return [
        _steps(noise, optimisation, event),
        _sampling(noise, optimisation),
        _clip(noise),
        _noise_size(noise),
        _noise_anew(noise),
    ]


def _steps(noise: Noise, optimisation: Optimisation, event: Gaussian) -> Check:
    watch = _Watch(noise, optimisation)
    done = len(watch.gradients)
    right = done == event.steps and (event.noise_multiplier, event.sample_rate) == (
        noise.noise_multiplier,
        noise.sample_rate,
    )
    return _check(
        "all steps are accounted",
        right,
        f"{done} steps at noise {noise.noise_multiplier:.4g} and rate {noise.sample_rate:g}, "
        f"accounted as {event.steps} at {event.noise_multiplier:.4g} and {event.sample_rate:g}",
    )


def _sampling(noise: Noise, optimisation: Optimisation) -> Check:
    """Each step takes each record on its own, and no seed repeats who is taken."""
    rate = noise.sample_rate
    epochs = math.ceil(_STEPS / private.steps(1, rate))
    longer = optimisation.model_copy(update={"epochs": epochs})
    took, again = (_Watch(noise, longer).attendance.double() for _ in range(2))
    if rate == 1:
        found = "rate 1: every step takes each record"
        return _check("Poisson sampling", bool(took.all()), found)
    steps, rows = took.shape
    variance = rate * (1 - rate)
    sizes = float(((took.sum(dim=1) - rows * rate) ** 2).mean()) / (rows * variance)
    turns = float(((took.sum(dim=0) - steps * rate) ** 2).mean()) / (steps * variance)
    low, high = _SPREAD
    right = low < sizes < high and low < turns < high and not torch.equal(took, again)
    return _check(
        "Poisson sampling",
        right,
        f"in {steps} steps at rate {rate:g} batch sizes vary {sizes:.2f} times and the records' "
        f"turns {turns:.2f} times as much as independent draws do (expected {low:g} to {high:g})"
        + (", and one seed repeats them" if torch.equal(took, again) else ""),
    )


def _clip(noise: Noise) -> Check:
    """Two huge records move the sum by at most twice the clip."""
    quiet = Noise(_QUIET, noise.clip, 1.0, 1)

    def loud(outputs: Tensor, _: Tensor) -> Tensor:
        return 1e4 * noise.clip * outputs.sum(dim=1)

    watch = _Watch(quiet, _ONCE, rows=2, loss=loud)
    moved = float(watch.gradients[0].norm())
    return _check(
        "clipping",
        moved <= 2 * noise.clip * (1 + 1e-4),
        f"two records ten thousand times too loud move the sum by {moved:.4g}, of "
        f"{2 * noise.clip:g} allowed",
    )


def _noise_size(noise: Noise) -> Check:
    """With records that have no gradient, what is released is noise, drawn once and of its size."""
    watch = _Watch(Noise(noise.noise_multiplier, noise.clip, 1.0, 1), _ONCE)
    draws = watch.gradients[0].double()
    scale = noise.noise_multiplier * noise.clip
    ratio = float((draws**2).sum()) / scale**2
    return _check(
        "noise after the clip, once a step",
        _as_chance(ratio, len(draws)),
        f"on a sum over several small batches it has {math.sqrt(ratio / len(draws)):.2f} times "
        "the size that is accounted (1 expected)",
    )


def _noise_anew(noise: Noise) -> Check:
    """Neither the next step, nor the next round, nor the same seed repeats the noise."""
    whole = Noise(noise.noise_multiplier, noise.clip, 1.0, 1)
    rounds = [_Watch(whole, _TWICE).gradients for _ in range(2)]
    pairs = {"one step and the next": rounds[0][:2], "two rounds": [each[0] for each in rounds]}
    alike = {name: abs(_correlation(*pair)) for name, pair in pairs.items()}
    worst = max(alike, key=alike.__getitem__)
    return _check(
        "noise drawn anew, from no seed",
        alike[worst] < _ALIKE,
        f"the noise of {worst} correlates by {alike[worst]:.2f} (0 expected)",
    )


def check_messages(
    receipts: Sequence[tuple[str, str]], recorded: Sequence[str], *, protected: bool
) -> Check:
    """No field that left may be unpaid, and none may have left without a receipt.

    Args:
        receipts: (field, provenance) of what the clients' release gates let out.
        recorded: names of the fields in the messages that the server received.
        protected: whether the unit protects records, so that each field needs a paid event.
    """
    fields, known = (
        {name.split("/")[0] for name in names}
        for names in (recorded, [field for field, _ in receipts])
    )
    unpaid = sorted({field for field, origin in receipts if protected and origin.endswith("no DP")})
    missing = sorted(fields - known)
    if unpaid or missing:
        names = ", ".join([*unpaid, *missing])
        return Check("recorded messages", "VIOLATION", f"field {names} left and nobody paid for it")
    kind = "each paid for" if protected else "none protected: NO DP"
    found = f"{len(recorded)} fields in the recorded messages, {kind}"
    return Check("recorded messages", "CONSISTENT", found)


_ONCE = Optimisation(epochs=1, learning_rate=0.1, momentum=0.0)
_TWICE = Optimisation(epochs=2, learning_rate=0.1, momentum=0.0)


class _Watch:
    """A training that is watched: who takes part in each step, and what each step releases."""

    def __init__(
        self,
        noise: Noise,
        optimisation: Optimisation,
        *,
        rows: int = _ROWS,
        loss: Loss | None = None,
    ) -> None:
        self.gradients: list[Tensor] = []
        self._steps: list[Tensor] = []
        self._loss = loss or _nothing
        self._now = torch.zeros(rows, dtype=torch.bool)
        samples = Samples(torch.ones(rows, _WIDTH), torch.arange(rows))
        # Always under one and the same global seed, which must make no difference.
        with torch_default(torch.Generator().manual_seed(0)):
            model = nn.Linear(_WIDTH, _WIDTH)
            self._parameters = list(model.parameters())
            optimiser = torch.optim.SGD(model.parameters(), lr=1e-6)
            optimiser.register_step_pre_hook(self._note)
            private.train(
                model, samples, optimisation, noise, loss=self._watched, optimiser=optimiser
            )

    @property
    def attendance(self) -> Tensor:
        """Which record each step took: bool (steps, rows)."""
        return torch.stack(self._steps)

    def _watched(self, outputs: Tensor, y: Tensor) -> Tensor:
        self._now[y] = True
        return self._loss(outputs, y)

    def _note(self, *_: object) -> None:
        parts = [value.grad.flatten() for value in self._parameters if value.grad is not None]
        self.gradients.append(torch.cat(parts))
        self._steps.append(self._now)
        self._now = torch.zeros_like(self._now)


_WIDTH = 30


def _nothing(outputs: Tensor, _: Tensor) -> Tensor:
    return 0 * outputs.sum(dim=1)


def _as_chance(squares: float, freedom: int) -> bool:
    """Whether a sum of squares is one that chance gives, by the chi-square distribution."""
    tail = min(stats.chi2.cdf(squares, freedom), stats.chi2.sf(squares, freedom))
    return bool(tail > _CHANCE / 2)


def _correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one, other]).double())[0, 1])


def _check(what: str, right: bool, found: str) -> Check:  # noqa: FBT001 - one line each
    outcome: Outcome = "CONSISTENT" if right else "VIOLATION"
    return Check(what, outcome, found)
