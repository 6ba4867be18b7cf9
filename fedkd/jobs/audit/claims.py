"""What the parties of a run say that they spent, by their own ledgers."""

from pathlib import Path

from fedkd.auditing.verdicts import Claim
from fedkd.errors import UsageError
from fedkd.federation.engines import client_ledger
from fedkd.federation.prepare import PreparedExperiment
from fedkd.methods.core import accounting
from fedkd.privacy.events import from_json
from fedkd.privacy.ledger import OWNERS, Ledger, Part
from fedkd.runs import ledgers
from fedkd.runs.folder import RunFolder


def claimed(folder: Path, prepared: PreparedExperiment, *, by_clients: bool) -> Claim | None:
    """The most that any party spent of its data in a run; None where nothing is claimed: NO DP.

    Args:
        folder: the run's.
        prepared: its experiment, prepared.
        by_clients: of what clients send, which the client units do not protect from the server.

    Raises:
        UsageError: a ledger holds no account of the data that the run's experiment names.
        LedgerError: a ledger was changed, cut or rolled back.
    """
    unit = prepared.experiment.privacy.unit
    if unit == "none" or (by_clients and unit != "record"):
        return None
    accounts = ledgers.read_intact(folder)
    if unit == "record":
        _check_data(folder, prepared)
    most = max((each.statement for each in accounts), key=lambda each: each.epsilon or 0.0)
    return Claim.of([from_json(event) for event in most.events], prepared.experiment.privacy.delta)


def _check_data(folder: Path, prepared: PreparedExperiment) -> None:
    """Refuse ledgers of another data set: what they say was spent is no claim about this one."""
    budget = accounting.budget(prepared.experiment.privacy)
    states = RunFolder(folder).states
    for client in range(prepared.setting.clients):
        file = client_ledger(prepared.experiment.privacy, states, client)
        if budget is None or not file.exists():
            continue
        if not Ledger(file).account(OWNERS, budget, Part(prepared.deal, client)).spent():
            raise UsageError(
                f"ledger {str(file)!r} is of another data set than client {client}'s in this run: "
                "expected the ledger that the run wrote, and the data that its config.toml names"
            )
