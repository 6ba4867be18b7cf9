"""Events: frozen values that say how private data was touched.

An event says what happened, never what it costs; costing it is `fedkd.privacy.accountant`'s part.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Unit = Literal["record", "client"]
"""Whose presence is hidden: one record of a client's, or one client with all that it holds."""
Adjacency = Literal["add-remove", "replace-one"]
"""What neighbouring data sets are: one unit more or less, or one unit replaced."""


@dataclass(frozen=True, slots=True)
class Unprotected:
    """Private data was used without differential privacy; its epsilon is infinite."""

    what: str
    """What was computed, in words: `"teacher training"`, `"example count"`."""

    def __str__(self) -> str:
        return f"{self.what}, no DP"


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A sum with Gaussian noise, `steps` times, each over a fresh Poisson sample of the data."""

    what: str
    noise_multiplier: float
    """The noise's standard deviation over the sum's L2 sensitivity under `adjacency`."""
    sample_rate: float = 1.0
    """The probability with which a step takes each record; 1 takes all."""
    steps: int = 1
    unit: Unit = "record"
    adjacency: Adjacency = "add-remove"

    def __str__(self) -> str:
        rate = "" if self.sample_rate == 1 else f", rate {self.sample_rate:g}"
        times = "" if self.steps == 1 else f", {self.steps} steps"
        return f"{self.what}, Gaussian noise {self.noise_multiplier:.4g}{rate}{times}"


@dataclass(frozen=True, slots=True)
class Laplace:
    """A sum with Laplace noise, `steps` times."""

    what: str
    noise_multiplier: float
    """The noise's scale over the sum's L1 sensitivity under `adjacency`."""
    steps: int = 1
    unit: Unit = "record"
    adjacency: Adjacency = "add-remove"

    def __str__(self) -> str:
        times = "" if self.steps == 1 else f", {self.steps} times"
        return f"{self.what}, Laplace noise {self.noise_multiplier:.4g}{times}"


Protected = Gaussian | Laplace
"""An event whose cost is finite."""
Event = Unprotected | Protected


def grouped(events: Iterable[Protected]) -> Counter[Protected]:
    """Equal events counted: the event with `steps=1` to all its steps."""
    counts: Counter[Protected] = Counter()
    for event in events:
        counts[replace(event, steps=1)] += event.steps
    return counts


def as_json(event: Protected) -> dict[str, Any]:
    """The event as JSON values; `from_json` reads it back equal."""
    return {"mechanism": type(event).__name__.lower(), **asdict(event)}


def from_json(table: Mapping[str, Any]) -> Protected:
    """The event that `as_json` wrote.

    Raises:
        ValueError: the table is no event.
    """
    values = dict(table)
    kind = values.pop("mechanism", None)
    with suppress(TypeError):
        if kind == "gaussian":
            return Gaussian(**values)
        if kind == "laplace":
            return Laplace(**values)
    raise ValueError(f"Expected a Gaussian or Laplace event, got {dict(table)}.")
