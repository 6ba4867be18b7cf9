"""One party's spending on one experiment: its account, its plan, and where its ledger stands."""

from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from fedkd.federation import wire
from fedkd.federation.prepare import PreparedExperiment
from fedkd.methods.core import accounting
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

    prepared: PreparedExperiment
    ledger: Ledger
    account: Account

    @classmethod
    def of_records(
        cls,
        prepared: PreparedExperiment,
        ledger: Ledger,
        call: wire.Call,
        owner: Owner | None = None,
    ) -> Self:
        """A client's spending on its records, the experiment's whole plan written down.

        Without an owner it is a client of a simulation, one of the disjoint parts of its data.

        Raises:
            BudgetError: the plan, on top of all that was spent before, is over the budget.
            LedgerError: the ledger was changed, or is older than the server has seen it.
        """
        if (seen := call.ledger_head) is not None:
            ledger.check_anchor(Anchor(seen.sequence, seen.head))
        if owner is None:
            return cls._planned(prepared, ledger, OWNERS, Part(prepared.deal, call.client))
        if owner.cap is not None:
            ledger.account(OWNERS, owner.cap).cap()
        return cls._planned(prepared, ledger, OWNERS)

    @classmethod
    def of_clients(cls, prepared: PreparedExperiment, ledger: Ledger) -> Self:
        """The server's spending on its clients, the experiment's whole plan written down.

        Raises:
            BudgetError: as `of_records`.
            LedgerError: the ledger was changed.
        """
        # One account for all clients that this server may ever ask, whatever their data is called.
        return cls._planned(prepared, ledger, sha256(b"clients").digest())

    @classmethod
    def _planned(
        cls, prepared: PreparedExperiment, ledger: Ledger, data: bytes, part: Part = WHOLE
    ) -> Self:
        account = ledger.account(data, _budget(prepared), part)
        account.commit(accounting.plan(prepared.method, prepared.setting))
        return cls(prepared, ledger, account)

    def reserve(self, round: int, kept: Collection[str] = ()) -> Allowance:
        """What the round may do; `kept` as in `accounting.round_events`.

        Raises:
            BudgetError: the budget does not allow the round; nothing was touched.
        """
        events = accounting.round_events(self.prepared.method, self.prepared.setting, kept)
        return Allowance(self.account, self._purpose(round), events)

    def require(self, round: int, kept: Collection[str] = ()) -> None:
        """Raise whatever `reserve` would, and spend nothing."""
        if events := accounting.round_events(self.prepared.method, self.prepared.setting, kept):
            self.account.require(self._purpose(round), events)

    def _purpose(self, round: int) -> str:
        return f"{self.prepared.experiment.name}, round {round}"

    def send_again(self, payload: bytes) -> None:
        """Write down that an answer that was made before leaves, at no cost."""
        self.account.sent_again(sha256(payload).hexdigest())

    def ledger_head(self) -> wire.LedgerHead:
        """Where the ledger stands now."""
        statement, head = self.account.statement(), self.ledger.head
        return wire.LedgerHead(
            head.sequence, head.digest, statement.enforced or 0.0, statement.enforced_by
        )


def no_ledger() -> Ledger:
    """Where a ledger is needed and there is no place for one.

    Raises:
        ValueError: always.
    """
    raise ValueError("Expected a folder for ledgers: what is spent must outlive the process.")


def _budget(prepared: PreparedExperiment) -> Budget:
    budget = accounting.budget(prepared.experiment.privacy)
    if budget is None:
        raise ValueError("Expected an experiment that names a budget.")
    return budget
