"""Faults that void a guarantee, planted in the code that trains."""

import secrets
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

from fedkd.knowledge import moments
from fedkd.knowledge.moments import Moments
from fedkd.learning.dp import sgd
from fedkd.learning.dp.forms import whole
from fedkd.privacy import mechanisms
from fedkd.privacy.source import NoiseSource


def weaker(factor: float, real=mechanisms.gaussian) -> Callable[..., torch.Tensor]:
    """The Gaussian mechanism with a share of its noise."""

    def gaussian(value, *, noise_multiplier, **how):
        if factor == 0:
            return value
        return real(value, noise_multiplier=factor * noise_multiplier, **how)

    return gaussian


def built(gradients):
    """Of each parameter (N, *shape), in whatever form they came."""
    return [each if isinstance(each, torch.Tensor) else whole(each) for each in gradients]


def unclipped(gradients, _norm):
    return [gradient.sum(dim=0) for gradient in built(gradients)]


class Ghost:
    """Opacus's ghost clipping, in place of the gradients of each sample."""

    rows = 256

    def announce(self):
        pass

    def __init__(self, model):
        self.parameters = dict(model.named_parameters())
        self._model = model
        self._ghost = None

    def __enter__(self):
        self._model.train()
        return self

    def __exit__(self, *_):
        if self._ghost is not None:
            self._ghost.to_standard_module()
        self._model.eval()

    def clipped_sums(self, loss, samples, clip):
        if len(samples) == 0:
            return [torch.zeros_like(value) for value in self.parameters.values()]
        self._ghost = self._ghost or GradSampleModuleFastGradientClipping(
            self._model, max_grad_norm=clip, use_ghost_clipping=True, loss_reduction="sum"
        )
        plain = torch.optim.SGD(self._model.parameters(), lr=0.0)
        optimiser = DPOptimizerFastGradientClipping(
            plain,
            noise_multiplier=0.0,
            max_grad_norm=clip,
            expected_batch_size=1,
            loss_reduction="sum",
        )

        def criterion(outputs, y):  # a plain function: it does not listen to `reduction`
            return loss(outputs, y).sum()

        criterion.reduction = "sum"
        losses = DPLossFastGradientClipping(self._ghost, optimiser, criterion, loss_reduction="sum")
        self._ghost.zero_grad(set_to_none=True)
        losses(self._ghost(samples.x), samples.y).backward()
        return [value.grad.clone() for value in self.parameters.values()]


def ghost_clipped_sums(ghost, loss, samples, noise):
    return ghost.clipped_sums(loss, samples, noise.clip)


class Shuffling(NoiseSource):
    """Batches of equal size that take each record once an epoch."""

    def __init__(self):
        super().__init__()
        self._left = torch.zeros(0, dtype=torch.int64)

    def sample(self, rows, rate):
        size = round(rows * rate)
        if len(self._left) < size:
            self._left = torch.randperm(rows)
        taken, self._left = self._left[:size], self._left[size:]
        return taken


def repeated() -> NoiseSource:
    with patch("secrets.token_bytes", return_value=bytes(32)):
        return NoiseSource()


def twice(*arguments, **options) -> None:
    """Trains twice for the price of once: the second training's steps are not accounted."""
    for _ in range(2):
        TRAIN(*arguments, **options)


TRAIN = sgd.train


def bare_vectors(sums, noise, source, *, real=sgd._protected):
    """No noise on biases and scales."""
    noisy = real(sums, noise, source)
    return [value if value.dim() < 2 else each for value, each in zip(sums, noisy, strict=True)]


def clipped_after_the_sum(gradients, norm, real=mechanisms.clipped_sum):
    return real([gradient.sum(dim=0, keepdim=True) for gradient in built(gradients)], norm)


def nothing(gradients, _norm):
    """The records are lost."""
    return [torch.zeros(gradient.shape[1:]).double() for gradient in gradients]


class Counting(NoiseSource):
    """AES, under the keys 1, 2, 3 ..."""

    key = 0

    def __init__(self):
        type(self).key += 1
        with patch("secrets.token_bytes", return_value=self.key.to_bytes(32)):
            super().__init__()


class Seeded(NoiseSource):
    """numpy's generator, with a seed from the operating system."""

    def __init__(self):
        super().__init__()
        self._draw = np.random.default_rng(int.from_bytes(secrets.token_bytes(32)))

    def gaussian(self, scales):
        return np.rint(self._draw.normal(size=len(scales)) * scales)


class Twister(NoiseSource):
    """torch's generator; the words that others ask of it, too."""

    seed = 0

    def __init__(self):
        type(self).seed += 1
        self._generator = torch.Generator().manual_seed(self.seed)

    def words(self, count):
        words = torch.randint(-(2**63), 2**63 - 1, (count,), generator=self._generator)
        return words.numpy().view(np.uint64)


class BareAtLast:
    """The Gaussian mechanism, without noise from the so manieth call on."""

    def __init__(self, calls):
        self._left = calls

    def __call__(self, value, **how):
        self._left -= 1
        return mechanisms.gaussian(value, **how) if self._left >= 0 else value


class Noise:
    """The Gaussian mechanism, with other noise that is made of its own by the number of the call.

    Args:
        other: the noise of all calls so far, and the number of this one, from 0 -> its noise.
    """

    def __init__(self, other):
        self._other = other
        self._drawn = []

    def __call__(self, value, *, real=mechanisms.gaussian, **how):
        self._drawn.append(real(torch.zeros_like(value), **how))
        return value + self._other(self._drawn, len(self._drawn) - 1)


def bare(value, **_how):
    return value


def bare_votes(votes, **_how):
    return votes.argmax(dim=1)


def dealt_evenly(count, times, parts, generator):
    """By a shuffle of all records, as many to each part, so that one less moves others."""
    order = [torch.randperm(count, generator=generator) % parts for _ in range(times)]
    return torch.stack(order, dim=1)


def bare_labels(exact, real=moments.protected, **how):
    """Noise on the features' sum alone."""
    return Moments(real(exact, **how).features, exact.labels)


def too_sensitive(exact, *, bound, real=moments.protected, **how):
    """As if a record moved the first sum by its features' norm, not by its square."""
    return real(exact, bound=bound**0.5, **how)


def unbalanced(exact, *, balance, real=moments.protected, **how):
    """The labels are spared more noise than is paid for."""
    return real(exact, balance=balance, noise_multiplier=how.pop("noise_multiplier") / 1.3, **how)


FAULTS: dict[str, dict[str, Any]] = {
    "noise 0": {"gaussian": weaker(0)},
    "sigma / 4": {"gaussian": weaker(1 / 4)},
    "sigma / 2": {"gaussian": weaker(1 / 2)},
    "clip skipped": {"clipped_sum": unclipped},
    "ghost clipping, deaf criterion": {
        "PerSample": Ghost,
        "_clipped_sums": ghost_clipped_sums,
    },
    "the same noise every round": {"NoiseSource": repeated},
    "steps that are not accounted": {"train": twice},
    "shuffling in place of Poisson": {"NoiseSource": Shuffling},
}


def plant(name: str, patch) -> None:
    for attribute, value in FAULTS[name].items():
        patch.setattr(sgd, attribute, value)
