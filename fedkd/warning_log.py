"""What the library warns of, for whoever sits before it."""

import logging
from collections.abc import Callable

_TOLD_ELSEWHERE = ("fedkd.federation.client", "fedkd.federation.cohort")
"""Logs of answers that failed: a site's terminal shows them, and here the round's own line does."""


class Warnings(logging.Handler):
    """Passes on what the library warns of, each text once.

    Args:
        say: shows a line.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._say = say
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        text = record.getMessage()
        if text not in self._said and record.name not in _TOLD_ELSEWHERE:
            self._said.add(text)
            self._say(f"warning: {text}")
