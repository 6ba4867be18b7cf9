"""What a student says of one record, as values that a program and a person can read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Text = str | tuple[str, str]
"""A text, or a pair such as a question and its context."""


@dataclass(frozen=True)
class FoundBox:
    """A box around something, in pixels from the image's upper left corner.

    Attributes:
        name: of its class.
        left: where it begins; `right` is where it ends.
        top: where it begins; `bottom` is where it ends.
        right: see `left`.
        bottom: see `top`.
        score: how likely it is, in [0, 1].
    """

    name: str
    left: float
    top: float
    right: float
    bottom: float
    score: float

    def __str__(self) -> str:
        corners = ", ".join(f"{v:.4g}" for v in (self.left, self.top, self.right, self.bottom))
        return f"{self.name} ({corners})"


@dataclass(frozen=True)
class FoundPoint:
    """Where a point is, in pixels from the image's upper left corner."""

    x: float
    y: float

    def __str__(self) -> str:
        return f"({self.x:.4g}, {self.y:.4g})"


@dataclass(frozen=True, eq=False)
class FoundMask:
    """A class for each pixel.

    Attributes:
        classes: int64 (H, W), places in `names`.
        names: of the classes.
    """

    classes: NDArray[np.int64] = field(repr=False)
    names: tuple[str, ...]

    def __str__(self) -> str:
        height, width = self.classes.shape
        return f"{height}x{width} pixels"


Answer = (
    str
    | tuple[str, ...]
    | tuple[FoundBox, ...]
    | Mapping[str, float]
    | Mapping[str, FoundPoint]
    | FoundMask
    | NDArray[np.float32]
)
"""What is answered, by the targets of a task (`fedkd.tasks.Targets`).

`classes`: the likeliest class. `binary`: the labels that are likelier than not. `numbers`: numbers
by name. `masks`: a class for each pixel. `boxes`: the boxes, the surest first. `points`: points by
name. `items`: the likeliest ten of those that the user has not. `identities`: a vector of length 1;
of texts the text that belongs to it. `tags`: the words, each with its tag. `spans`, `tokens` and
`next-tokens`: a text.
"""


@dataclass(frozen=True)
class Prediction:
    """What a student says of one record.

    Attributes:
        input: the text, or the file, that it was asked about; of an array or a row its place among
            those that were given, from 0.
        answer: see `Answer`.
        scores: probabilities of classes, labels or items, of a mask the shares of its pixels, of
            texts that were looked for cosines; by name, the largest first. None of other answers.
    """

    input: Text | int
    answer: Answer
    scores: Mapping[str, float]

    def __str__(self) -> str:
        """The answer in a line."""
        match self.answer:
            case Mapping():
                return ", ".join(f"{name} {_short(each)}" for name, each in self.answer.items())
            case tuple():
                return ", ".join(map(str, self.answer)) or "none"
            case np.ndarray():
                return f"a vector of {len(self.answer)} numbers"
        return str(self.answer)

    def as_json(self) -> dict[str, Any]:
        """As numbers, texts, lists and dictionaries, for a file or a wire."""
        told = asdict(self)
        return dict(json.loads(json.dumps(told, default=np.ndarray.tolist)))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def ranked(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores by name, the largest first."""
    return dict(sorted(scores.items(), key=lambda pair: -pair[1]))
