"""What clients' sums need beside noise; and means as sums, which are all that a secure sum gives.

A mean by counts is the sum of what each client holds times its count, over the sum of counts.
"""

from torch import Tensor

from fedkd.exchange.masking.fixed_point import most
from fedkd.knowledge.moments import Moments
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
