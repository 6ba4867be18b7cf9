"""An allowance for what is replayed in an audit, and goes nowhere."""

from fedkd.privacy.allowance import Allowance
from fedkd.privacy.events import Protected


class Unwritten(Allowance):
    """Allows all; what is released under it goes nowhere."""

    def __init__(self) -> None:
        pass

    def spend(self, event: Protected, *, sampler: str = "", generator: str = "") -> None:
        """See `Allowance`."""
