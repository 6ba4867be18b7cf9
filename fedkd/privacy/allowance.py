"""An allowance: what may be done with private data in one round, reserved before any of it is."""

import hashlib
from collections import Counter
from collections.abc import Sequence

from fedkd.errors import UnpaidError
from fedkd.privacy.events import Protected, grouped
from fedkd.privacy.ledger import Account


class Allowance:
    """One round's reservation in a ledger; each reserved event may happen once.

    Args:
        account: of the data that is to be touched.
        purpose: such as `"demo, round 7"`, for people who read the ledger.
        events: the worst case of the round.

    Raises:
        BudgetError: the budget does not allow these events; nothing was touched or written.
    """

    def __init__(self, account: Account, purpose: str, events: Sequence[Protected]) -> None:
        self._account = account
        self._left = Counter(events)
        self.used = False
        """Whether anything was spent of it."""
        # Where all that a round sends was paid for earlier there is nothing to reserve.
        self._reservation = account.reserve(purpose, events) if events else None

    def spend(self, event: Protected, *, sampler: str = "", generator: str = "") -> None:
        """Write down that the data is about to be touched for `event`. Call it before it is.

        Raises:
            UnpaidError: the event was not reserved, or has happened already.
        """
        if self._left[event] < 1:
            raise UnpaidError(
                f"{event}: not among what this round reserved, or done already; the method's card "
                "must name every count that it sends, and a method trains once a round"
            )
        self._left[event] -= 1
        if self._reservation is not None and not self.used:
            self._account.touch(self._reservation, sampler=sampler, generator=generator)
            self.used = True

    def paid(self, event: Protected) -> bool:
        """Whether the ledger holds `event`, of this round or an earlier one."""
        return set(grouped([event])) <= set(grouped(self._account.spent()))

    def settle(self, payload: bytes) -> None:
        """Write down what will leave."""
        if self._reservation is not None and self.used:
            self._account.settle(self._reservation, digest=hashlib.sha256(payload).hexdigest())

    def send(self) -> None:
        """Write down that it leaves, just before it does."""
        if self._reservation is not None and self.used:
            self._account.send(self._reservation)
