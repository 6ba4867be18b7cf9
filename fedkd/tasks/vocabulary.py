"""What a model must know of the tokens that it takes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a tokeniser: numbers from 0.

    Attributes:
        size: how many there are, V.
        padding: what fills a record up, and does not count.
        start: what a text begins with.
        end: what a text ends with.
    """

    size: int
    padding: int
    start: int
    end: int
