"""What audits found, as tables for a terminal and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from fedkd.auditing.exposure import Exposure
from fedkd.auditing.findings import Audited
from fedkd.auditing.membership import Attack
from fedkd.auditing.roc import RATES, Rate
from fedkd.auditing.verdicts import Check, Outcome, Verdict
from fedkd.reports import poisoning

_STYLES: dict[Outcome, str] = {
    "VIOLATION": "bold red",
    "CONSISTENT": "green",
    "NO POWER": "yellow",
    "UNEXPLAINED": "bold yellow",
}


def tables(found: Audited) -> Group:
    """Attacks, verdicts and checks, one below the other."""
    parts: list[RenderableType] = []
    if found.attacks:
        parts.append(_attacks(found.attacks))
    if found.exposures:
        parts.append(_exposures(found.exposures))
    if found.poisoning is not None:
        parts.append(poisoning.table(found.poisoning))
    parts += [escape(line) for line in words(found)]
    if found.verdicts:
        parts.append(_verdicts(found.verdicts))
    if found.checks:
        parts.append(_checks(found.checks))
    return Group(*parts)


def _attacks(attacks: Sequence[Attack]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption=_threats(attacks))
    table.add_column("attack")
    for name in ("AUC", "TPR at 1%", "at 0.1%", "epsilon"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for each in attacks:
        table.add_row(
            f"{escape(each.name)}\n[dim]{escape(each.on)}[/dim]",
            _on_two_lines(area(each.roc.auc)),
            *(_on_two_lines(share(each.roc.at[rate])) for rate in RATES),
            f">= {each.epsilon:.2f}",
            mark(each.verdict.outcome) if each.verdict else "no claim",
        )
    return table


def _exposures(exposures: Sequence[Exposure]) -> Table:
    threats = dict.fromkeys(each.verdict.threat for each in exposures if each.verdict is not None)
    claims = dict.fromkeys(each.verdict.claim for each in exposures if each.verdict is not None)
    lines = [
        "exposure in bits: log2 of how many fills there are, less log2 of the secret's rank; a "
        "model that never saw it has 1.4 on average, and as many as b bits once in 2^b",
        *(f"claimed: {claim}, and a secret is in several records" for claim in claims),
        *([] if claims else ["NO DP: nothing is claimed"]),
        *(f"attacker: {escape(threat)}" for threat in threats),
    ]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption="\n".join(lines))
    table.add_column("exposed by")
    for name in ("mean", "each", "most", "records", "epsilon"):
        table.add_column(name, justify="right")
    table.add_column("verdict", no_wrap=True)
    for each in exposures:
        table.add_row(
            escape(each.on),
            f"{sum(each.bits) / len(each.bits):.1f}",
            " ".join(f"{bits:.1f}" for bits in each.bits),
            f"{each.most:.1f}",
            f"{each.times}",
            f">= {each.epsilon:.2f}",
            mark(each.verdict.outcome) if each.verdict else "no claim",
        )
    return table


def _on_two_lines(text: str) -> str:
    """A figure above its interval: a terminal is narrow."""
    return text.replace(" (", "\n(")


def _threats(attacks: Sequence[Attack]) -> str:
    sizes = {(each.roc.members, each.roc.others) for each in attacks}
    asked = ", ".join(f"{inside:,} members and {outside:,} others" for inside, outside in sizes)
    threats = dict.fromkeys(each.threat for each in attacks)
    claims = dict.fromkeys(each.verdict.claim for each in attacks if each.verdict is not None)
    return "\n".join(
        [
            f"{asked}; AUC 0.5 is chance; TPR at so many false positives",
            "in brackets: intervals; epsilon: a lower bound",
            *(f"claimed: {claim}" for claim in claims),
            *([] if claims else ["NO DP: nothing is claimed"]),
            *(f"attacker: {escape(threat)}" for threat in threats),
        ]
    )


def area(rate: Rate) -> str:
    """An area with its interval, as `0.688 (0.653-0.723)`."""
    return f"{rate.value:.3f} ({rate.low:.3f}-{rate.high:.3f})"


def share(rate: Rate | None) -> str:
    """A share with its interval in percent, as `7.2% (5.7-8.9)`; None is one that none can see."""
    if rate is None:
        return "too few"
    return f"{100 * rate.value:.1f}% ({100 * rate.low:.1f}-{100 * rate.high:.1f})"


def words(found: Audited) -> list[str]:
    """What was found beside verdicts, a sentence each."""
    lines = []
    if found.labels is not None:
        lines.append(
            f"classes held by each client: guessed {found.labels.error:.2f} off (total variation: "
            f"0 right, 1 wholly wrong); who knows only what all hold together is "
            f"{found.labels.blind:.2f} off"
        )
    for each in found.inversions:
        better = sum(near < blind for near, blind in zip(each.distances, each.blind, strict=True))
        lines.append(
            f"images of client {each.client}: {better} of {len(each.classes)} drawn classes are "
            "nearer to the client's mean record than the mean public image is; the nearest record "
            f"is the client's for {100 * each.nearer:.0f}% of them (50% is chance)"
        )
    shortfalls = [
        f"{each.outcome.lower()}: {each.shortfall}" for each in found.verdicts if each.shortfall
    ]
    return [*lines, *shortfalls, *found.notes]


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
        "attacks": [_attack(each) for each in found.attacks],
        "exposures": [_exposure(each) for each in found.exposures],
        **({} if found.poisoning is None else {"poisoning": poisoning.as_json(found.poisoning)}),
        "words": words(found),
    }


def _attack(each: Attack) -> dict[str, Any]:
    return {
        "attack": each.name,
        "on": each.on,
        "threat": each.threat,
        "auc": asdict(each.roc.auc),
        "tpr": {f"{rate:g}": tpr and asdict(tpr) for rate, tpr in each.roc.at.items()},
        "members": each.roc.members,
        "others": each.roc.others,
        "auc_by_client": {client: asdict(rate) for client, rate in each.by_client.items()},
        "epsilon": each.epsilon,
        "claim": asdict(each.verdict.claim) if each.verdict else None,
        "outcome": each.verdict.outcome if each.verdict else None,
    }


def _exposure(each: Exposure) -> dict[str, Any]:
    return {
        "on": each.on,
        "bits": list(each.bits),
        "most": each.most,
        "records": each.times,
        "epsilon": each.epsilon,
        "claim": asdict(each.verdict.claim) if each.verdict else None,
        "outcome": each.verdict.outcome if each.verdict else None,
    }
