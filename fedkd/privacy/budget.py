"""A budget: the most that may ever be spent of one data set."""

import math
from dataclasses import dataclass

from fedkd.privacy.events import Adjacency, Unit


@dataclass(frozen=True, slots=True)
class Budget:
    """(epsilon, delta), the most that all events on one data set may cost together.

    Raises:
        ValueError: epsilon is not a positive number, or delta does not lie in (0, 1).
    """

    epsilon: float
    """Finite, > 0."""
    delta: float
    """In (0, 1); well below one over the number of records."""
    unit: Unit = "record"
    adjacency: Adjacency = "add-remove"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise ValueError(f"Expected a finite epsilon={self.epsilon} > 0.")
        if not 0 < self.delta < 1:
            raise ValueError(f"Expected 0 < delta={self.delta} < 1.")

    def __str__(self) -> str:
        return f"epsilon {self.epsilon:g} at delta {self.delta:g} ({self.unit}, {self.adjacency})"
