"""Events: frozen values that say how private data was touched.

An event says what happened, never what it costs; costing it is the accountant's part. One event
exists so far, the honest one: private data was used and nothing protects it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unprotected:
    """Private data was used without differential privacy; its epsilon is infinite."""

    what: str
    """What was computed, in words: `"teacher training"`, `"example count"`."""

    def __str__(self) -> str:
        return f"{self.what}, no DP"


Event = Unprotected
