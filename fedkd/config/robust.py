"""What a server does about clients that lie: whom it leaves out, and how the others count."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from fedkd.config.parts import Frozen

AnswersRule = Literal["mean", "median", "trimmed-mean", "geometric-median", "cronus", "expguard"]
"""How answers on the same inputs come together; `mean` is the method's own way."""
ModelsRule = Literal[
    "mean",
    "median",
    "trimmed-mean",
    "geometric-median",
    "multi-krum",
    "bulyan",
    "centred-clipping",
]
"""How equal models come together; `mean` is the method's own way."""


class Robust(Frozen):
    """Robustness against hostile clients, on the server alone."""

    screen: bool = True
    """Whether a client that does not agree with most others is left out of a round."""
    hostile: float = Field(default=0.3, gt=0, lt=0.5)
    """The share of a round's clients that may lie together."""
    answers: AnswersRule = "mean"
    """The rule for answers."""
    models: ModelsRule = "mean"
    """The rule for equal models."""
    neighbours: bool = False
    """Whether each model is first mixed with those that are nearest to it."""
    memory: float = Field(default=0.5, ge=0, lt=1)
    """How much of what was found of a client in earlier rounds counts in the next."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.neighbours and self.models == "mean":
            raise ValueError(
                "robust.neighbours = true mixes models before a rule, and robust.models is 'mean': "
                "choose a rule, such as 'median', or leave it out"
            )
        if not self.screen and self.answers == "mean" and self.models == "mean":
            raise ValueError(
                "robust.screen is false, and robust.answers and robust.models are 'mean': nothing "
                "is done about anybody; choose a rule, or leave [robust] out"
            )
        return self

    def liars(self, clients: int) -> int:
        """How many of a round's clients are withstood: the share, rounded up, and never half."""
        return min(math.ceil(self.hostile * clients - 1e-9), max(0, clients - 1) // 2)
