"""An audit's report: one self-contained HTML file, and the same in JSON."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fedkd.auditing.findings import Audited
from fedkd.auditing.inversion import Inversion
from fedkd.auditing.membership import Attack
from fedkd.auditing.poisoning.outcomes import rows
from fedkd.auditing.verdicts import Claim
from fedkd.config import Experiment
from fedkd.files import write_atomically
from fedkd.reports import audit_tables, poisoning
from fedkd.reports.charts.drawing import Chart
from fedkd.reports.charts.gallery import Strip, strip
from fedkd.reports.charts.poisoning import poisoning_chart
from fedkd.reports.charts.roc import roc_chart
from fedkd.reports.report import page
from fedkd.version import __version__


@dataclass(frozen=True)
class Drawn:
    """One client's images as an attacker drew them, above the client's nearest records."""

    client: int
    strips: tuple[Strip, Strip]
    verdict: str


@dataclass(frozen=True)
class PoisoningPart:
    """The page's part on poisoning: a table, what it means, and the same drawn."""

    heads: list[str]
    rows: list[tuple[str, list[str]]]
    notes: list[str]
    attacks: dict[str, str]
    chart: Chart | None


def write(found: Audited, folder: Path, experiment: Experiment, *, claim: Claim | None) -> Path:
    """Write `audit.html` and `audit.json` into a folder, and return the page's path.

    Args:
        found: all that was audited.
        folder: it exists.
        experiment: what was audited.
        claim: what the ledgers say was spent; None where nothing is protected.
    """
    facts = _facts(experiment)
    write_atomically(
        folder / "audit.json",
        json.dumps({**facts, **audit_tables.as_json(found)}, indent=2, allow_nan=False) + "\n",
    )
    file = folder / "audit.html"
    outcomes = [each.outcome for each in found.outcomes]
    write_atomically(
        file,
        page(
            "audit.html",
            title=experiment.name,
            facts=facts,
            uncovered=_uncovered(experiment) if claim else [],
            found=found,
            claim=claim,
            stamp="NO DP" if claim is None else f"epsilon {claim.epsilon:.4g}",
            violated="VIOLATION" in outcomes,
            unexplained="UNEXPLAINED" in outcomes,
            charts=_charts(found.attacks),
            drawn=[_drawn(each) for each in found.inversions],
            words=audit_tables.words(found),
            area=audit_tables.area,
            share=audit_tables.share,
            poisoned=_poisoned(found),
            threats=list(dict.fromkeys(_threats(found))),
        ),
    )
    return file


def _facts(experiment: Experiment) -> dict[str, str]:
    """What a page must say to be held against what it is about.

    The experiment's SHA-256 is of the one that ran, its noise resolved: sites allow another.
    """
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "fedkd": __version__,
        "method": experiment.method.name,
        "data set": str(experiment.data.name),
        "experiment as it ran": hashlib.sha256(experiment.to_json().encode()).hexdigest(),
    }


def _uncovered(experiment: Experiment) -> list[str]:
    """What epsilon says nothing of, a sentence each."""
    privacy = experiment.privacy
    record = privacy.unit == "record"
    lines = [
        "It hides whether one record took part, not what all of a party's data have in common, nor "
        "a person who is behind several records"
        if record
        else "It hides what one client answered, not that it took part, nor how many did, nor a "
        "person who is behind several clients",
        "Test records are not protected: accuracies are reported without noise",
        "It does not count what was tried before: other runs of other ledgers, and settings that "
        "were chosen by looking at private data",
        "It does not cover what a site does outside fedkd: how it prepared its data, and logs",
        "Rows of the proxy set are public: whoever takes them from private data gives these away",
        "A simulation deals records to clients by the seed; real parties' data differ more, and "
        "that is not shown here",
        "An audit's own page and run folder tell of the data without noise: publish neither for "
        "private data",
    ]
    if not record:
        lines.append("The server sees each client's answers as they are: it is trusted")
    if privacy.secure_aggregation:
        lines.append(
            "Under secure aggregation it holds for whoever sees the sum alone, the server too, "
            "whatever it does: no more clients than docs/secure_sums.md says may work with it, "
            "none may be of its making, and the others must add their noise"
        )
    return lines


def _charts(attacks: Sequence[Attack]) -> list[Chart]:
    targets = dict.fromkeys(each.on for each in attacks)
    charts = []
    for number, target in enumerate(targets):
        on_target = [each for each in attacks if each.on == target]
        claims = [each.verdict.claim for each in on_target if each.verdict is not None]
        charts.append(roc_chart(f"roc-{number}", on_target, claims[0] if claims else None))
    return charts


def _poisoned(found: Audited) -> PoisoningPart | None:
    if (attacked := found.poisoning) is None:
        return None
    shown = [
        (row.attack, [poisoning.share(row), *poisoning.cells(attacked, row)])
        for row in rows(attacked)
    ]
    return PoisoningPart(
        poisoning.heads(attacked),
        shown,
        poisoning.notes(attacked),
        poisoning.about(attacked),
        poisoning_chart(attacked),
    )


def _drawn(each: Inversion) -> Drawn:
    better = sum(near < blind for near, blind in zip(each.distances, each.blind, strict=True))
    names = (f"Drawn for client {each.client}", f"Client {each.client}’s nearest records")
    images = (each.drawn, each.originals)
    return Drawn(
        each.client,
        tuple(  # type: ignore[arg-type]  # two of them
            strip(name, np.asarray(part, dtype=np.float64).clip(0, 1))
            for name, part in zip(names, images, strict=True)
        ),
        f"{better} of {len(each.classes)} classes are drawn nearer to the client’s mean record "
        "than the mean public image is, which takes no attack.",
    )


def _threats(found: Audited) -> list[str]:
    return [*(each.threat for each in found.attacks), *(each.threat for each in found.verdicts)]
