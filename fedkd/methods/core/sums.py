"""What clients' sums need beside noise."""

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
