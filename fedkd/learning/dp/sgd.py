"""Learning from targets with differential privacy: DP-SGD, Abadi et al. 2016, arXiv:1607.00133.

The gradient of every sample is `per_sample`'s. What is protected is the presence of
one record, and the cost is that of `fedkd.privacy.events.Gaussian(noise_multiplier, sample_rate,
steps(epochs, sample_rate))` under add/remove. The records of a step and its noise come from the
operating system's entropy (`fedkd.privacy.source`), never from the experiment's seed: the server
knows that seed, and who knows the noise subtracts it, who knows the batches voids the amplification
by sampling. Hence the same call twice gives two different models.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fedkd import devices
from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.errors import FederationError
from fedkd.learning import augment, optim
from fedkd.learning.dp.checks import check_model, check_training, checked_loss
from fedkd.learning.dp.dropout import drawn_in_secret
from fedkd.learning.dp.per_sample import Loss, PerSample
from fedkd.learning.loop import Moved, set_rate
from fedkd.learning.supervised import require_anchor
from fedkd.privacy.gradients import Gradients
from fedkd.privacy.mechanisms import clipped_sum, gaussian
from fedkd.privacy.source import NoiseSource
from fedkd.rows import Rows, one, shape_of, whole
from fedkd.tasks.likelihoods.categorical import CATEGORICAL

SAMPLER = "Poisson"
"""How the records of a step are chosen: each on its own, with the probability `sample_rate`."""

_ARITHMETIC = 2.0**-10
"""What float32 may add to the clip, as a share of it: where a record comes or goes, others stand in
other small batches, and their gradients and partial sums end in other digits. Not proven; measured
at a sixtieth of this, over 20,000 records. A length of products that cancel takes up to a third."""


Clipping = Literal["flat", "automatic", "layers"]


@dataclass(frozen=True, slots=True)
class Noise:
    """How a step is protected; every value is public, and none may be fitted to the private data.

    Attributes:
        noise_multiplier: the noise's standard deviation over `clip`, > 0.
        clip: the largest L2 norm that one record's gradient may have, > 0.
        sample_rate: the probability with which a step takes each record, in (0, 1].
        batch_size: what the noisy sum is divided by, >= 1: the expected batch size by a public
            guess of N, never the realised one.
        clipping: "flat": a record's gradient is clipped as a whole; "automatic": see
            `mechanisms.clipped_sum`; "layers": the part of each of G layers to clip / sqrt(G), so
            that all together are within `clip`, McMahan et al. 2018, arXiv:1710.06963.

    Raises:
        ValueError: a value is outside its range, or not finite.
    """

    noise_multiplier: float
    clip: float
    sample_rate: float
    batch_size: int
    clipping: Clipping = "flat"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "clipping" and not 0 < value < math.inf:
                raise ValueError(f"expected {field.name}={value} finite and > 0")
        if self.clipping not in get_args(Clipping):
            raise ValueError(f"expected clipping={self.clipping!r} among {get_args(Clipping)}")
        if self.sample_rate > 1:
            raise ValueError(f"expected sample_rate={self.sample_rate} <= 1")


def steps(epochs: int, sample_rate: float) -> int:
    """How many steps see each record `epochs` times on average: epochs / sample_rate, rounded up.

    A quotient within a rounding error of a whole number is that number: 49 at rate 1/49 are 2401.
    """
    quotient = epochs / sample_rate
    whole = round(quotient)
    return whole if math.isclose(quotient, whole, rel_tol=1e-12) else math.ceil(quotient)


def train(
    model: nn.Module,
    samples: Samples,
    optimisation: Optimisation,
    noise: Noise,
    *,
    loss: Loss = CATEGORICAL.nll,
    optimiser: torch.optim.Optimizer | None = None,
    anchor: Mapping[str, Tensor] | None = None,
    proximal: float = 0.0,
    offset: Tensor | None = None,
    like: Rows | None = None,
    moved: Moved | None = None,
    on_epoch: Callable[[int], None] | None = None,
) -> None:
    """Minimise the mean of `loss` by noisy steps; the model ends in evaluation mode.

    Nothing but the model's weights and the optimiser's state comes out, and these are protected. A
    training loss, the realised batch sizes and the number of records are not, so they are not told.

    Gradients are made, clipped and summed where the model is, in all digits of float32: see
    `devices.compute_exactly`. Noise is drawn and added on the CPU.

    Changes of inputs and the model's own dropout are drawn in secret: see `dropout`.

    Args:
        model: trained in place, but for parameters that do not require gradients.
        samples: N >= 0 inputs and targets; without any, the steps are noise.
        optimisation: epochs, optimiser, learning rate and schedule, changes of inputs, whose draws
            are secret too. `batch_size` is not used.
        noise: how each step is protected.
        loss: see `Loss`, such as a likelihood's `nll`; cross-entropy unless given. The first batch
            is also used to try it out.
        optimiser: goes on with this one; None: a fresh one over all parameters.
        anchor: the parameters to stay near, by name; a whole state dict will do.
        proximal: mu >= 0 of FedProx's mu/2 ||w - anchor||^2, arXiv:1812.06127. Its gradient
            touches no private data, so it is added after the noise, exactly.
        offset: (C,), added to the logits of classes before the loss; no private data may be in it
            that was not paid for. None: nothing.
        like: public inputs to try the model out on, see `check_model`.
        moved: see `loop.fit`.
        on_epoch: called with the number of each epoch, from 1, when it is over.

    Raises:
        ConfigError: see `check_model` and `check_training`.
        ValueError: mu is negative, or positive without an anchor for every parameter; the optimiser
            has not the model's parameters; the loss is not one value per sample, or lets samples
            touch each other.
        FederationError: training diverged.
    """
    devices.compute_exactly()
    pulls = _pulls(model, anchor, proximal)
    check_training(optimisation, "training")
    check_model(model, shape_of(samples.x), like=like)
    optimiser = optimiser or optim.build(model.parameters(), optimisation)
    _check_optimiser(optimiser, model)
    loss = checked_loss(_beside(loss, offset))
    source = NoiseSource()
    view = augment.build(optimisation.augment)
    # From the seed, which the server knows, a record more would move the draws of those after it.
    draws = source.generator()
    total = steps(optimisation.epochs, noise.sample_rate)
    ends = {steps(epoch, noise.sample_rate): epoch for epoch in range(1, optimisation.epochs + 1)}
    with PerSample(model) as per_sample, drawn_in_secret(model, source):
        per_sample.announce()
        for step in range(total):
            set_rate(optimiser, optimisation, step / total)
            taken = samples.subset(source.sample(len(samples), noise.sample_rate))
            x, motions = view(whole(taken.x), draws)
            y = taken.y if moved is None else reduce(moved, motions, taken.y)
            seen = Samples(one(x), y)
            sums = _clipped_sums(per_sample, loss, seen, noise)
            optimiser.zero_grad(set_to_none=True)
            noisy = _protected(sums, noise, source)
            for (name, parameter), told in zip(per_sample.parameters.items(), noisy, strict=True):
                # Whether sums come in float32 or float64 tells how many records were taken; so the
                # type is the parameter's before anything else is rounded.
                gradient = told.to(parameter).div_(noise.batch_size)
                parameter.grad = pulls(name, parameter, gradient)
            optimiser.step()
            _check_finite(per_sample.parameters, step + 1, optimisation)
            if on_epoch is not None and step + 1 in ends:
                on_epoch(ends[step + 1])


def _protected(sums: Sequence[Tensor], noise: Noise, source: NoiseSource) -> list[Tensor]:
    """The sums, released together with noise."""
    together = torch.cat([value.flatten() for value in sums])
    noisy = gaussian(
        together,
        sensitivity=noise.clip * (1 + _ARITHMETIC),
        noise_multiplier=noise.noise_multiplier,
        source=source,
    )
    parts = torch.split(noisy, [value.numel() for value in sums])
    return [part.view_as(value) for part, value in zip(parts, sums, strict=True)]


def _beside(loss: Loss, offset: Tensor | None) -> Loss:
    return loss if offset is None else lambda logits, y: loss(logits + offset.to(logits), y)


def _clipped_sums(
    per_sample: PerSample, loss: Loss, samples: Samples, noise: Noise
) -> list[Tensor]:
    """The clipped gradients' sum for every trainable parameter, in batches that memory holds.

    On the CPU; of several batches, added up in float64.
    """
    learning = list(per_sample.parameters.values())
    parts = []
    for start in range(0, len(samples), per_sample.rows):
        rows = torch.arange(start, min(start + per_sample.rows, len(samples)))
        x, y = one(samples.x[rows]).to(learning[0].device), samples.y[rows].to(learning[0].device)
        parts.append(_clipped(per_sample, per_sample.forms(x, y, loss), noise))
    if len(parts) == 1:
        return [total.cpu() for total in parts[0]]
    sums = [torch.zeros_like(each).double() for each in learning]
    for part in parts:
        sums = [total + each for total, each in zip(sums, part, strict=True)]
    return [total.cpu() for total in sums]


def _clipped(per_sample: PerSample, forms: Sequence[Gradients], noise: Noise) -> list[Tensor]:
    """The clipped gradients' sums: one record moves them by at most `clip`, all together."""
    if noise.clipping == "automatic":
        return clipped_sum(forms, noise.clip, automatic=True)
    if noise.clipping == "flat":
        return clipped_sum(forms, noise.clip)
    found, each = dict[int, Tensor](), noise.clip / math.sqrt(len(per_sample.layers))
    for layer in per_sample.layers:
        found |= zip(layer, clipped_sum([forms[number] for number in layer], each), strict=True)
    return [found[number] for number in range(len(forms))]


def _pulls(
    model: nn.Module, anchor: Mapping[str, Tensor] | None, proximal: float
) -> Callable[[str, Tensor, Tensor], Tensor]:
    """What adds the proximal term's gradient, mu (w - anchor), to a parameter's other one."""
    require_anchor(model, anchor, proximal)
    if anchor is None or proximal == 0:
        return lambda _name, _value, gradient: gradient
    near = {name: tensor.to(devices.of(model)) for name, tensor in anchor.items()}
    return lambda name, value, gradient: gradient + proximal * (value.detach() - near[name])


def _check_optimiser(optimiser: torch.optim.Optimizer, model: nn.Module) -> None:
    """Refuse an optimiser of another model's parameters, or of some of this one's."""
    held = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    own = {id(parameter) for parameter in model.parameters()}
    trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    if not trainable <= held <= own:
        raise ValueError(
            "the optimiser holds other parameters than the model: expected "
            "optim.build(model.parameters(), ...)"
        )


def _check_finite(parameters: Mapping[str, Tensor], step: int, optimisation: Optimisation) -> None:
    # A sum tells in a fraction of the time, unless it overflows itself.
    if not all(each.sum().isfinite() or each.isfinite().all() for each in parameters.values()):
        raise FederationError(
            f"training diverged: a weight is not finite after step {step}; lower the learning rate "
            f"(now {optimisation.learning_rate})"
        )
