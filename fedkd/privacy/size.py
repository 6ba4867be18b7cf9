"""How large a data set may be for its delta: by a public bound, so that no decision tells its size.

A refusal that depends on how many records somebody holds says so to whoever sees it. So delta is
held against a bound that the configuration names, and the true number makes a warning at most,
to who holds the data.
"""

import logging
from collections.abc import Sequence

from fedkd.config import DPSGD
from fedkd.errors import ConfigError

_log = logging.getLogger(__name__)

MOST_RECORDS = 10_000
"""What `privacy.most_records` is taken to be unless given."""


MOST_DELTA = 1e-3
"""The most that delta may be, however few units are said to be there: what anybody says of their
number may be wrong, and with this chance a mechanism may publish all of them outright."""


def most_records(privacy: DPSGD) -> int:
    """How many records a data set is taken to hold at most; public."""
    return privacy.most_records or MOST_RECORDS


def in_a_step(privacy: DPSGD, batch_size: int) -> float:
    """How many records a step has at most, by what the configuration says of them.

    Args:
        privacy: of the experiment.
        batch_size: what a step's noisy sum is divided by.
    """
    declared = privacy.most_records or 0
    return max(float(batch_size), privacy.sample_rate * declared)


def check_delta(privacy: DPSGD) -> None:
    """Refuse a delta that lets a mechanism publish one record outright.

    Raises:
        ConfigError: delta is above one over `most_records`, or above `MOST_DELTA`.
    """
    most = most_records(privacy)
    if privacy.delta * most > 1:
        raise ConfigError(
            f"privacy.delta is {privacy.delta:g}, above 1 / {most:,}, and privacy.most_records is "
            f"{'that' if privacy.most_records else 'not given'}: a mechanism may publish one of so "
            "many records outright; expected a delta well below, or a public bound on the records "
            "that is smaller"
        )
    check_ceiling(privacy)


def check_ceiling(privacy: DPSGD) -> None:
    """Refuse a delta that is too large for any number of units.

    Raises:
        ConfigError: delta is above `MOST_DELTA`.
    """
    if privacy.delta > MOST_DELTA:
        raise ConfigError(
            f"privacy.delta is {privacy.delta:g}: with that chance a mechanism may publish all "
            f"that it is to hide; expected at most {MOST_DELTA:g}, however few there are to hide"
        )


def warn_of_sizes(privacy: DPSGD, sizes: Sequence[int]) -> None:
    """Warn who holds all the data that it is too large for delta, or larger than was said.

    Args:
        privacy: of the experiment.
        sizes: how many records each data set holds.
    """
    largest = max(sizes)
    if privacy.most_records is not None and largest >= privacy.most_records:
        _log.warning(
            "privacy.most_records is %d, and a data set holds %d records: raise it, with "
            "privacy.delta well below %.2g",
            privacy.most_records, largest, 1 / largest,
        )  # fmt: skip
    elif privacy.delta * largest >= 1:
        _log.warning(
            "privacy.delta is %g, and a data set holds %d records: at that size a mechanism may "
            "publish one of them outright; lower it to well below %.2g",
            privacy.delta, largest, 1 / largest,
        )  # fmt: skip
