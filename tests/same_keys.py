"""Keys that repeat, so that what is drawn under them does."""

import hashlib
import os


class Keys:
    """In place of `secrets.token_bytes`: bits that follow from a text and how many were drawn.

    A process that was forked has others, as it would have of the operating system.
    """

    def __init__(self, text: str = "") -> None:
        self._text, self._drawn, self._process = text, 0, os.getpid()

    def __call__(self, count: int = 32) -> bytes:
        """As `secrets.token_bytes`."""
        self._drawn += 1
        here = os.getpid()
        child = "" if here == self._process else f" in {here}"
        return hashlib.shake_256(f"{self._text}{self._drawn}{child}".encode()).digest(count)
