"""`fedkd audit plan`, `ledger` and `allow`: what is claimed, planned and spent; no attack."""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.common import Config, Override, answer, line
from fedkd.errors import LedgerError


def audit_plan(
    config: Config,
    *,
    override: Override = None,
    ledger: Annotated[
        Path | None,
        typer.Option(help="A ledger: what was spent before counts too.", metavar="FILE"),
    ] = None,
) -> None:
    """Say what an experiment will cost in privacy, term by term, before anything runs.

    Prints epsilon by PLD and by RDP, and the noise that the budget needs. Exit status 4 if the plan
    is over its budget, 2 if its noise lets nothing be learned.

    Example: fedkd audit plan private --set privacy.epsilon=3
    """
    from dataclasses import asdict

    from fedkd.api.audits import audit
    from fedkd.jobs.audit import plan
    from fedkd.reports import tables

    forecast = audit("plan", config, override or (), ledger=ledger)
    answer(asdict(forecast), tables.forecast(forecast))
    plan.check(forecast)


def audit_ledger(
    path: Annotated[
        Path,
        typer.Argument(help="A ledger, a folder of ledgers, or a run's folder.", metavar="PATH"),
    ],
) -> None:
    """Say what ledgers hold: what was spent of each data set, for what, and what is left.

    Exit status 4 if a ledger was changed, cut or rolled back.

    Example: fedkd audit ledger runs/private
    """
    from fedkd.api.audits import audit
    from fedkd.reports import tables
    from fedkd.runs import ledgers

    accounts = audit("ledger", path)
    answer(ledgers.as_dict(accounts), *map(tables.ledger, accounts))
    if broken := [each for each in accounts if each.statement.chain != "intact"]:
        first = broken[0]
        raise LedgerError(f"ledger {str(first.path)!r}: {first.statement.chain}")


def audit_allow(
    ledger: Annotated[Path, typer.Argument(help="The ledger's file.", exists=True, dir_okay=False)],
    epsilon: Annotated[float, typer.Argument(help="The most that each account may spend.")],
) -> None:
    """Let a ledger's data sets spend more, or less. For the owner of the data alone.

    Until then the budget that a data set was first used with is the most that its ledger allows,
    whatever budget a later experiment names.

    Example: fedkd audit allow ledgers/hospital-a.sqlite 8
    """
    from fedkd.runs import ledgers

    ledgers.allow(ledger, epsilon)
    value = {"ledger": ledger, "allowed": epsilon}
    answer(value, line(f"{ledger}: epsilon {epsilon:g} is allowed from now on"))
