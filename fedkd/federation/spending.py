"""One party's spending on one experiment: its account, its plan, and where its ledger stands."""

from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from fedkd.federation import wire
from fedkd.federation.world import World
from fedkd.methods.core import protection
from fedkd.privacy.allowance import Allowance
from fedkd.privacy.budget import Budget
from fedkd.privacy.ledger import OWNERS, WHOLE, Account, Anchor, Ledger, Part


@dataclass(frozen=True)
class Owner:
    """What a data's owner says of its ledger, whatever an experiment names."""

    cap: Budget | None
    """The most that may ever be spent of it; None leaves it to the first experiment's budget."""


@dataclass(frozen=True)
class Spending:
    """What a party may spend on an experiment, by its own ledger."""

    world: World
    ledger: Ledger
    account: Account

    @classmethod
    def of_records(
        cls, world: World, ledger: Ledger, call: wire.Call, owner: Owner | None = None
    ) -> Self:
        """A client's spending on its records, the experiment's whole plan written down.

        Without an owner it is a client of a simulation, one of the disjoint parts of its data.

        Raises:
            BudgetError: the plan, on top of all that was spent before, is over the budget.
            LedgerError: the ledger was changed, or is older than the server has seen it.
        """
        if (seen := call.standing) is not None:
            ledger.check_anchor(Anchor(seen.sequence, seen.head))
        if owner is None:
            return cls._planned(world, ledger, OWNERS, Part(world.deal, call.client))
        if owner.cap is not None:
            ledger.account(OWNERS, owner.cap).cap()
        return cls._planned(world, ledger, OWNERS)

    @classmethod
    def of_clients(cls, world: World, ledger: Ledger) -> Self:
        """The server's spending on its clients, the experiment's whole plan written down.

        Raises:
            BudgetError: as `of_records`.
            LedgerError: the ledger was changed.
        """
        # One account for all clients that this server may ever ask, whatever their data is called.
        return cls._planned(world, ledger, sha256(b"clients").digest())

    @classmethod
    def _planned(cls, world: World, ledger: Ledger, data: bytes, part: Part = WHOLE) -> Self:
        account = ledger.account(data, _budget(world), part)
        account.commit(protection.plan(world.method, world.setting))
        return cls(world, ledger, account)

    def reserve(self, round: int, kept: Collection[str] = ()) -> Allowance:
        """What the round may do; `kept` as in `protection.round_events`.

        Raises:
            BudgetError: the budget does not allow the round; nothing was touched.
        """
        events = protection.round_events(self.world.method, self.world.setting, kept)
        return Allowance(self.account, self._purpose(round), events)

    def require(self, round: int, kept: Collection[str] = ()) -> None:
        """Raise whatever `reserve` would, and spend nothing."""
        if events := protection.round_events(self.world.method, self.world.setting, kept):
            self.account.require(self._purpose(round), events)

    def _purpose(self, round: int) -> str:
        return f"{self.world.experiment.name}, round {round}"

    def send_again(self, payload: bytes) -> None:
        """Write down that an answer that was made before leaves, at no cost."""
        self.account.sent_again(sha256(payload).hexdigest())

    def standing(self) -> wire.Standing:
        """Where the ledger stands now."""
        told, head = self.account.statement(), self.ledger.head
        return wire.Standing(head.sequence, head.digest, told.enforced or 0.0, told.enforced_by)


def no_ledger() -> Ledger:
    """Where a ledger is needed and there is no place for one.

    Raises:
        ValueError: always.
    """
    raise ValueError("Expected a folder for ledgers: what is spent must outlive the process.")


def _budget(world: World) -> Budget:
    budget = protection.budget(world.experiment.privacy)
    if budget is None:
        raise ValueError("Expected an experiment that names a budget.")
    return budget
