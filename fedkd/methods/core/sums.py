"""What clients' sums need beside noise: a range that holds them, and no one above all others."""

import torch

from fedkd.exchange.aggregation.agreement import no_longer
from fedkd.exchange.masking.fixed_point import most
from fedkd.knowledge.moments import Moments, total, unpacked
from fedkd.methods.core.server_context import ServerContext, Uploads
from fedkd.methods.core.setting import Setting

_FEWEST = 3
"""Clients of which one can be told to be louder than most."""


def fitting(exact: Moments, setting: Setting) -> Moments:
    """Sums held so far inside the range of secure aggregation that noise will not carry them out.

    A refusal would tell of the data and be paid by nobody. What is cut moves no further than it
    did, so the sensitivity stays.
    """
    half = most(setting.cohort_size) / 2
    return Moments(exact.features.clamp(-half, half), exact.labels.clamp(-half, half))


def added(ctx: ServerContext, uploads: Uploads) -> Moments:
    """The sum of all clients' `features` and `labels`.

    Under `[robust]` each client's two sums are cut by one factor, so that neither is longer than
    three times the median client's. That bounds each client alone: sums cannot be compared with
    others' as answers can, since honest ones differ as data does.
    """
    parts = [unpacked(each["features"], each["labels"]) for each in uploads.values()]
    if ctx.robust is None or len(parts) < _FEWEST:
        return total(parts)
    lengths = torch.stack([torch.stack([each.norm() for each in part]) for part in parts])
    factors = torch.stack([no_longer(own) for own in lengths.unbind(dim=1)]).amin(dim=0)
    apart = (lengths / lengths.median(dim=0).values.clamp(min=1e-300)).amax(dim=1)
    ctx.apart.update(zip(uploads, apart.tolist(), strict=True))
    return total(
        Moments(*(factor * each for each in part))
        for factor, part in zip(factors, parts, strict=True)
    )
