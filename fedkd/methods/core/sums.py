"""What clients' sums need beside noise: a range that holds them, and no one above all others.

And means as sums, since a secure sum gives nothing else: a mean by counts is the sum of what each
client holds times its count, over the sum of counts.
"""

import torch
from torch import Tensor

from fedkd.exchange.aggregation.agreement import FEWEST, no_longer
from fedkd.exchange.masking.fixed_point import most
from fedkd.knowledge.moments import Moments, total, unpacked
from fedkd.methods.core.combining import relative
from fedkd.methods.core.server_context import ServerContext, Uploads
from fedkd.methods.core.setting import Setting


def fitting(exact: Moments, setting: Setting) -> Moments:
    """Sums held so far inside the range of secure aggregation that noise will not carry them out.

    A refusal would tell of the data and be paid by nobody. What is cut moves no further than it
    did, so the sensitivity stays.
    """
    half = most(setting.cohort_size) / 2
    return Moments(exact.features.clamp(-half, half), exact.labels.clamp(-half, half))


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
    parts = [unpacked(each["features"], each["labels"]) for each in uploads.values()]
    if ctx.robust is None or len(parts) < FEWEST:
        return total(parts)
    lengths = torch.stack([torch.stack([each.norm() for each in part]) for part in parts])
    factors = torch.stack([no_longer(own) for own in lengths.unbind(dim=1)]).amin(dim=0)
    apart = torch.stack([relative(own) for own in lengths.unbind(dim=1)]).amax(dim=0)
    ctx.apart.update(zip(uploads, apart.tolist(), strict=True))
    return total(
        Moments(*(factor * each for each in part))
        for factor, part in zip(factors, parts, strict=True)
    )
