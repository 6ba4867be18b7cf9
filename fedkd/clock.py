"""Seconds by phase, and a word to whoever watches."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Notify = Callable[[str, int, int], None]
"""Called with a phase, steps done and steps in all."""


class Clock:
    """Seconds by phase, and a word to whoever watches."""

    def __init__(self, notify: Notify) -> None:
        self.seconds: dict[str, float] = {}
        self.current = ""
        """The phase under way, or the one that an exception ended."""
        self._notify = notify

    @contextmanager
    def phase(self, name: str, steps: int = 1) -> Iterator[Callable[[], None]]:
        """Time a phase; the function that it yields reports one more step done."""
        done = 0
        started = time.perf_counter()

        def advance() -> None:
            nonlocal done
            done += 1
            self._notify(name, done, steps)

        self.current = name
        self._notify(name, 0, steps)
        yield advance
        self.current = ""
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
