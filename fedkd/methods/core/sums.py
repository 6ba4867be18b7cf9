"""What clients' sums need beside noise: a range that holds them, and no one above all others.

And means as sums, since a secure sum gives nothing else: a mean by counts is the sum of what each
client holds times its count, over the sum of counts.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fedkd.data.types import Samples
from fedkd.exchange.aggregation.agreement import FEWEST, no_longer
from fedkd.exchange.masking.fixed_point import RESOLUTION, most
from fedkd.exchange.messages import PostProcessing, Provenance, Release, Tensors, group
from fedkd.knowledge.moments import (
    Correlations,
    Moments,
    correlated,
    protected,
    total,
    unpacked,
)
from fedkd.learning import softmax_regression
from fedkd.learning.closed_form import Basis, features_of, summed
from fedkd.methods.core.combining import relative
from fedkd.methods.core.server_context import ServerContext, Uploads
from fedkd.methods.core.setting import Setting
from fedkd.models.heads import head
from fedkd.privacy import mechanisms
from fedkd.privacy.allowance import Allowance
from fedkd.privacy.events import Unprotected
from fedkd.privacy.source import GENERATOR, NoiseSource

RELEASED = "released"
"""Where a client's state keeps what it paid for once and may send again."""


class _Client(Protocol):
    """What of a `ClientContext` its sums take."""

    setting: Setting
    client: int
    _data: Samples
    allowance: Allowance | None
    state: dict[str, Tensor]

    def keep(self, prefix: str, tensors: Tensors) -> None:
        """See `ClientContext`."""


def moments(
    ctx: _Client, model: nn.Module, *, basis: Basis | None, intercept: float, balance: float
) -> tuple[Moments, Provenance]:
    """The moments of a client's records in a model's features, as `closed_form.summed` has them.

    Under DP features are clipped to `privacy.clip`, and noise is drawn once, as in
    `knowledge.moments.protected`; later rounds get what was released. Under secure aggregation it
    is this client's share of the noise, drawn and paid for anew each time: two sums over other
    clients with the same share in both would bare a client with next to no noise.
    """
    setting, data = ctx.setting, ctx._data

    def exact(**how: Any) -> Moments:
        with setting.visiting(setting.device(ctx.client), model):
            return summed(model, data, setting.classes, **how)

    if ctx.allowance is None:
        return exact(basis=basis, intercept=intercept), Release(Unprotected("sums of features"))
    event = setting.summing("sums of features")
    securely = setting.securely
    if not securely and (kept := group(RELEASED, ctx.state).get(event.what)) is not None:
        released = Moments(kept[:, : len(kept)], kept[:, len(kept) :])  # kept side by side
        return released, PostProcessing(of=event)
    ctx.allowance.spend(event, generator=GENERATOR)
    found = exact(basis=basis, intercept=intercept, clip=setting.experiment.privacy.clip)
    released = protected(
        Moments(*(_fitting(each, setting) for each in found)) if securely else found,
        bound=setting.features_norm(intercept),
        balance=balance,
        noise_multiplier=event.noise_multiplier * setting.noise_share,
        source=NoiseSource(),
        # Finer steps would be rounded on the way, client by client, and so tell of each.
        finest=RESOLUTION if securely else 0.0,
    )
    if not securely:
        ctx.keep(RELEASED, {event.what: torch.cat(released, dim=1)})
    return released, Release(event)


def _fitting(exact: Tensor, setting: Setting) -> Tensor:
    """Sums held so far inside the range of secure aggregation that noise will not carry them out.

    A refusal would tell of the data and be paid by nobody. What is cut moves no further than it
    did, so the sensitivity stays.
    """
    half = most(setting.cohort_size) / 2
    return exact.clamp(-half, half)


def gradient(
    ctx: _Client, model: nn.Module, weights: Tensor, intercept: float
) -> tuple[Tensor, Provenance]:
    """The sum of a client's gradients of softmax regression: see `softmax_regression.gradient`.

    Under DP each record's is clipped to `privacy.clip`, and noise is drawn and paid for anew in
    each round: of one release, or, under secure aggregation, this client's share of it.

    Args:
        ctx: whose records they are.
        model: has the features.
        weights: at which they are taken, (F + 1, C), float64.
        intercept: the constant beside the features, > 0.
    """
    privacy, setting, data = ctx.setting.experiment.privacy, ctx.setting, ctx._data
    if ctx.allowance is None:
        features = _features(ctx, data, model)
        exact = softmax_regression.gradient(features, data.y, weights, intercept=intercept)
        return exact, Release(Unprotected("sum of gradients"))
    event = setting.summing("sum of gradients")
    ctx.allowance.spend(event, generator=GENERATOR)
    exact = softmax_regression.gradient(
        _features(ctx, data, model), data.y, weights, intercept=intercept, clip=privacy.clip
    )
    released = mechanisms.gaussian(
        _fitting(exact, setting) if setting.securely else exact,
        sensitivity=privacy.clip,
        noise_multiplier=event.noise_multiplier * setting.noise_share,
        source=NoiseSource(),
        # Finer steps would be rounded on the way, client by client, and so tell of each.
        finest=RESOLUTION if setting.securely else 0.0,
    )
    return released, Release(event)


def correlations(
    ctx: _Client, model: nn.Module, *, basis: Basis | None, intercept: float
) -> tuple[Correlations, Provenance]:
    """A client's sums of features and labels, unprotected, as `moments.correlated` writes them.

    Products are summed in float32, a few thousand records at a time, and added in float64: what is
    lost is far below what float16 is about to lose.

    Args:
        ctx: whose records they are.
        model: has the features.
        basis: what the features are first seen in.
        intercept: the constant beside them.
    """
    setting = ctx.setting
    with setting.visiting(setting.device(ctx.client), model):
        exact = summed(
            model,
            ctx._data,
            setting.classes,
            basis=basis,
            intercept=intercept,
            dtype=torch.float32,
        )
    return correlated(exact), Release(Unprotected("sums of features"))


def short_step(setting: Setting) -> float:
    """The step in which noisy sums of gradients are sent in 16 bits under masks: see `shortened`.

    A power of two, at most a third of the standard deviation of what each client adds.
    """
    event = setting.summing("sum of gradients")
    share = event.noise_multiplier * setting.noise_share * setting.experiment.privacy.clip
    # Parties may compute the noise a last bit apart: at a power of two that would be another step.
    exponent = math.frexp(float(f"{share / 3:.12g}"))[1]
    return 2.0 ** (exponent - 1)


def shortened(noisy: Tensor, step: float) -> Tensor:
    """A client's part, with its share of the noise, in whole steps modulo 2^16: int16.

    The sum of m such parts costs what the sum of the parts does, however coarse that looks beside
    the clip, since what is rounded has noise on it. Each is drawn from a density f(k step - x), f
    being a Gaussian of deviation s convolved with a box of one step; so by Poisson's summation
    formula their sum is, but for e^(-(pi s / step)^2) < 1e-38, drawn from the convolution of all m
    at k step - (x_1 + ... + x_m). That depends on the sum alone, and is what comes of one Gaussian
    on it, of deviation s sqrt(m), if one adds m - 1 independent roundings and rounds: it is
    computed from a release that is paid for. To round adds less than 1% to the noise's variance.
    To wrap around is computed from the sum as well.
    """
    whole = (noisy.double() / step + 0.5).floor()
    return ((whole + 2**15) % 2**16 - 2**15).to(torch.int16)


_MOST_KEPT = 2**30
"""Bytes of all clients' features that a process keeps from one round to the next."""


def _features(ctx: _Client, data: Samples, model: nn.Module) -> Tensor:
    """The features of all of a client's records, found once for as long as the process lives."""
    last = {id(each) for each in head(model).state_dict(keep_vars=True).values()}
    front = model.state_dict(keep_vars=True).values()
    digest = sha256()
    for each in front:
        if id(each) not in last:
            digest.update(each.detach().numpy().tobytes())
    inputs, known, features = ctx.setting.kept.get(ctx.client, (None, "", torch.empty(0)))
    if inputs is not data.x or known != digest.hexdigest():
        with ctx.setting.visiting(ctx.setting.device(ctx.client), model):
            features = features_of(model, data.x)
        held = sum(each.nbytes for _, _, each in ctx.setting.kept.values())
        if held + features.nbytes <= _MOST_KEPT:
            ctx.setting.kept[ctx.client] = data.x, digest.hexdigest(), features
    return features


_UNIT = 64.0
"""Records that count as one, so that numbers times counts stay inside the range of the fixed point:
with 10^7 records in all, numbers up to 1,700 do, and of 64 records a step is 2^-24."""


def part_of_mean(values: Tensor, counts: Tensor) -> Tensor:
    """A client's part of a mean by counts, float64; counts (*) are broadcast to values (*, ...)."""
    return values.double() * _beside(counts, values) / _UNIT


def mean_of_parts(sums: Tensor, counts: Tensor) -> Tensor:
    """The mean that added up parts and counts stand for; zeros where nobody counts."""
    return sums * _UNIT / _beside(counts, sums).clamp(min=1)


def _beside(counts: Tensor, values: Tensor) -> Tensor:
    return counts.double().reshape(*counts.shape, *[1] * (values.dim() - counts.dim()))


def added(ctx: ServerContext, uploads: Uploads) -> Moments:
    """The sum of all clients' `features` and `labels`.

    Under `[robust]` each client's two sums are cut by one factor, so that neither is longer than
    three times the median client's. That bounds each client alone: sums cannot be compared with
    others' as answers can, since honest ones differ as data does.
    """
    return added_moments(
        ctx, {c: unpacked(each["features"], each["labels"]) for c, each in uploads.items()}
    )


def added_moments(ctx: ServerContext, given: Mapping[int, Moments]) -> Moments:
    """As `added`, of the clients' moments."""
    parts = list(given.values())
    factors = _factors(ctx, given, parts)
    if factors is None:
        return total(parts)
    return total(
        Moments(*(factor * each for each in part))
        for factor, part in zip(factors, parts, strict=True)
    )


def added_gradients(ctx: ServerContext, uploads: Uploads) -> Tensor:
    """The sum of all clients' `gradient`, in float64; under `[robust]` each cut as in `added`."""
    parts = [each["gradient"].double() for each in uploads.values()]
    factors = _factors(ctx, uploads, [(each,) for each in parts])
    if factors is not None:
        parts = [factor * each for factor, each in zip(factors, parts, strict=True)]
    return torch.stack(parts).sum(dim=0)


def _factors(
    ctx: ServerContext, clients: Iterable[int], parts: Sequence[Sequence[Tensor]]
) -> Tensor | None:
    """By what each client's tensors are cut so that none is far longer than others'; None: none."""
    if ctx.robust is None or len(parts) < FEWEST:
        return None
    lengths = torch.stack([torch.stack([each.norm() for each in part]) for part in parts])
    factors = torch.stack([no_longer(own) for own in lengths.unbind(dim=1)]).amin(dim=0)
    apart = torch.stack([relative(own) for own in lengths.unbind(dim=1)]).amax(dim=0)
    ctx.apart.update(zip(clients, apart.tolist(), strict=True))
    return factors
