"""What a distillation spends of its data, written into a ledger before the data is touched."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fedkd import devices
from fedkd.config import Distillation
from fedkd.exchange.codec import encode
from fedkd.learning.dp import plan
from fedkd.learning.dp import sgd as private
from fedkd.learning.ways.base import Private
from fedkd.privacy import shared
from fedkd.privacy.allowance import Allowance
from fedkd.privacy.ledger import OWNERS, Account, Ledger
from fedkd.privacy.source import GENERATOR


@dataclass(frozen=True)
class DistillationSpending:
    """A distillation's account, its whole plan written down."""

    distillation: Distillation
    account: Account

    def private(self) -> Private:
        """What ways to learn get."""
        return Private(plan.noise(self.distillation), self._pay)

    def _pay(self, stage: str, model: nn.Module, train: Callable[[], None]) -> None:
        noise = plan.noise(self.distillation)
        event = plan.event(self.distillation, noise.noise_multiplier)
        allowance = Allowance(self.account, f"{self.distillation.name}, {stage}", [event])
        allowance.spend(event, sampler=private.SAMPLER, generator=GENERATOR)
        train()
        allowance.settle(encode(devices.state_dict(model)))
        allowance.send()

    def summary(self) -> dict[str, Any]:
        """What was spent, for the summary."""
        statement, privacy = self.account.statement(), self.distillation.privacy
        return {
            "unit": "record",
            "epsilon": statement.enforced,
            "delta": statement.delta,
            "adjacency": statement.adjacency,
            "accountant": statement.enforced_by,
            "budget": statement.budget,
            "noise_multiplier": None if privacy is None else privacy.noise_multiplier,
        }


def ledger(distillation: Distillation, run: Path) -> Path | None:
    """Where a distillation's ledger is; None where nothing is protected.

    Args:
        distillation: complete.
        run: the run folder, where the ledger is unless the configuration names a place.

    Raises:
        ConfigError: the place holds ledgers that would not count.
    """
    if (privacy := distillation.privacy) is None:
        return None
    if privacy.ledger is None:
        return run / "checkpoints" / "ledger.db"
    folder = Path(privacy.ledger).expanduser()
    shared.check(folder)
    return folder / "ledger.db"


def commit(distillation: Distillation, run: Path) -> DistillationSpending | None:
    """Write the whole plan down; None where nothing is protected.

    Args:
        distillation: complete.
        run: the run folder.

    Raises:
        BudgetError: the plan, on top of all that was spent before of whatever data, is over the
            budget.
        LedgerError: the ledger was changed.
    """
    privacy, file = distillation.privacy, ledger(distillation, run)
    if privacy is None or file is None:
        return None
    account = Ledger(file).account(OWNERS, plan.budget(privacy))
    account.commit(plan.plan(distillation, plan.noise(distillation).noise_multiplier))
    return DistillationSpending(distillation, account)
