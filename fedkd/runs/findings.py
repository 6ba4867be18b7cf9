"""What audits found, as tables for a terminal and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from fedkd.audit.verdicts import Check, Outcome, Verdict
from fedkd.runs.audits import Audited

_STYLES: dict[Outcome, str] = {"VIOLATION": "bold red", "CONSISTENT": "green", "NO POWER": "yellow"}


def tables(found: Audited) -> Group:
    """Verdicts and checks, one below the other."""
    parts: list[RenderableType] = []
    if found.verdicts:
        parts.append(_verdicts(found.verdicts))
    if found.checks:
        parts.append(_checks(found.checks))
    return Group(*parts)


def _verdicts(verdicts: Sequence[Verdict]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption=_caption(verdicts))
    table.add_column("verdict", no_wrap=True)
    table.add_column("what")
    for name in ("claimed", "measured", "ceiling", "canaries"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in verdicts:
        table.add_row(
            mark(each.outcome),
            escape(each.what),
            f"{each.claim.epsilon:.3f}",
            f"{each.epsilon:.3f}",
            f"{each.ceiling:.2f}",
            f"{each.canaries:,}",
        )
    return table


def _caption(verdicts: Sequence[Verdict]) -> str:
    threats = dict.fromkeys(each.threat for each in verdicts)
    sure = {each.confidence for each in verdicts}
    return "\n".join(
        [
            *dict.fromkeys(
                f"unit: {each.claim.unit}, {each.claim.adjacency}, delta {each.claim.delta:g}"
                for each in verdicts
            ),
            "claimed: an upper bound on epsilon; measured: a lower bound at "
            f"{', '.join(f'{100 * each:g}%' for each in sorted(sure))} confidence",
            "ceiling: the most that these canaries could have shown",
            *(f"attacker: {escape(threat)}" for threat in threats),
        ]
    )


def _checks(checks: Sequence[Check]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("verdict", no_wrap=True)
    table.add_column("structure")
    table.add_column("found")
    for each in checks:
        table.add_row(mark(each.outcome), escape(each.what), escape(each.found))
    return table


def mark(outcome: Outcome) -> str:
    """The outcome in its colour."""
    return f"[{_STYLES[outcome]}]{outcome}[/]"


def as_json(found: Audited) -> dict[str, Any]:
    """The same as JSON values."""
    return {
        "verdicts": [
            {**asdict(each), "epsilon": each.epsilon, "ceiling": each.ceiling}
            for each in found.verdicts
        ],
        "checks": [asdict(each) for each in found.checks],
    }
