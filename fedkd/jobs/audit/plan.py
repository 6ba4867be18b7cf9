"""What an experiment will cost in privacy, before anything runs."""

from pathlib import Path

from fedkd.config import Experiment, Privacy
from fedkd.errors import BudgetError, LedgerError
from fedkd.federation import prepare
from fedkd.federation.engines import client_ledger, server_ledger
from fedkd.methods.core import accounting
from fedkd.methods.core.forecast import Forecast
from fedkd.privacy import shared
from fedkd.privacy.budget import Budget
from fedkd.privacy.chain import beside
from fedkd.privacy.events import Protected, from_json
from fedkd.privacy.signal import hopeless
from fedkd.runs.ledgers import read


def forecast(experiment: Experiment, ledger: Path | None = None) -> Forecast:
    """What an experiment will cost in privacy, on top of what a ledger holds.

    Without `ledger` that is what the shared ledger holds by which the experiment would be held, if
    there is one. Of a ledger with several accounts of the experiment's unit, the one with the most
    spent counts.

    Raises:
        UsageError: the experiment or the folder of its ledgers will not do, or it protects nothing.
        BudgetError: no noise is enough.
        LedgerError: the ledger is none, or cannot be believed.
    """
    ledger = ledger or _shared(experiment.privacy)
    return prepare.forecast(experiment, spent=_spent(experiment, ledger) if ledger else ())


def check(planned: Forecast) -> None:
    """Refuse a forecast that promises nothing but noise, or costs more than its budget.

    Raises:
        ConfigError: nothing can be learned.
        BudgetError: it is over the budget.
    """
    if planned.epsilon_needed is not None:
        budget = Budget(planned.budget, planned.delta, planned.unit, planned.adjacency)
        raise hopeless(planned.signal, planned.epsilon_needed, budget)
    if planned.epsilon > planned.budget:
        raise BudgetError(
            f"the plan costs epsilon {planned.epsilon:.4g} of a budget of {planned.budget:g}: "
            f"raise the noise multiplier to {planned.noise_needed:.4g}, or plan fewer rounds"
        )


def _shared(privacy: Privacy) -> Path | None:
    """The one ledger that a run with shared ledgers would be held by, if it is there."""
    if privacy.ledger is None:
        return None
    folder = Path(privacy.ledger)
    shared.check(folder)
    by_client = privacy.unit == "record"
    file = client_ledger(privacy, folder, 0) if by_client else server_ledger(privacy, folder)
    file = file.expanduser()
    return file if beside(file, ".seal").exists() else None


def _spent(experiment: Experiment, ledger: Path) -> list[Protected]:
    allowed = accounting.budget(experiment.privacy)
    accounts = [
        each
        for each in read(ledger)
        if allowed
        and (each.statement.unit, each.statement.adjacency) == (allowed.unit, allowed.adjacency)
    ]
    for each in accounts:
        if each.statement.chain != "intact":
            raise LedgerError(f"ledger {str(each.path)!r}: {each.statement.chain}")
    if not accounts:
        return []
    return [
        from_json(event)
        for event in max(accounts, key=lambda each: each.statement.epsilon or 0.0).statement.held
    ]
