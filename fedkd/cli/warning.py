"""What the library warns of, as lines on the standard error."""

import logging
import sys

_TOLD_ELSEWHERE = ("fedkd.federation.client", "fedkd.federation.cohort")
"""Logs of answers that failed: a site's terminal shows them, and here the round's own line does."""


class Warnings(logging.Handler):
    """Shows what the library warns of, each text once, as a line on the standard error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        text = record.getMessage()
        if text not in self._said and record.name not in _TOLD_ELSEWHERE:
            self._said.add(text)
            # Not by `err`: a live display has put its own stream here, and prints above itself.
            sys.stderr.write(f"warning: {text}\n")
