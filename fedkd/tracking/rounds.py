"""A federation's rounds, for trackers: an observer beside others."""

from collections.abc import Callable

from fedkd.federation.answers import Record, Unwatched


class RoundsTold(Unwatched):
    """Says that a round began, or is kept.

    Args:
        look: see `tracking.following.tracked`.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look

    def round_begins(self, round: int, cohort: list[int]) -> None:
        """See `Observer`."""
        self._look()

    def round_ends(self, record: Record) -> None:
        """See `Observer`."""
        self._look()
