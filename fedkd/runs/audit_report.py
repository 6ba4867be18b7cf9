"""An audit's report: one self-contained HTML file, and the same in JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedkd.audit.inversion import Inversion
from fedkd.audit.membership import Attack
from fedkd.audit.verdicts import Claim
from fedkd.files import write_atomically
from fedkd.runs import findings
from fedkd.runs.audited import Audited
from fedkd.runs.drawing import Chart
from fedkd.runs.gallery import Strip, strip
from fedkd.runs.report import page
from fedkd.runs.roc_chart import roc_chart


@dataclass(frozen=True)
class Drawn:
    """One client's images as an attacker drew them, above the client's nearest records."""

    client: int
    strips: tuple[Strip, Strip]
    verdict: str


def write(found: Audited, folder: Path, *, title: str, claim: Claim | None) -> Path:
    """Write `audit.html` and `audit.json` into a folder, and return the page's path.

    Args:
        found: all that was audited.
        folder: it exists.
        title: the experiment's name.
        claim: what the ledgers say was spent; None where nothing is protected.
    """
    write_atomically(
        folder / "audit.json", json.dumps(findings.as_json(found), indent=2, allow_nan=False) + "\n"
    )
    file = folder / "audit.html"
    outcomes = [each.outcome for each in found.outcomes]
    write_atomically(
        file,
        page(
            "audit.html",
            title=title,
            found=found,
            claim=claim,
            stamp="NO DP" if claim is None else f"epsilon {claim.epsilon:.4g}",
            violated="VIOLATION" in outcomes,
            charts=_charts(found.attacks),
            drawn=[_drawn(each) for each in found.inversions],
            words=findings.words(found),
            area=findings.area,
            share=findings.share,
            threats=list(dict.fromkeys(_threats(found))),
        ),
    )
    return file


def _charts(attacks: Sequence[Attack]) -> list[Chart]:
    targets = dict.fromkeys(each.on for each in attacks)
    charts = []
    for number, target in enumerate(targets):
        own = [each for each in attacks if each.on == target]
        claims = [each.verdict.claim for each in own if each.verdict is not None]
        charts.append(roc_chart(f"roc-{number}", own, claims[0] if claims else None))
    return charts


def _drawn(each: Inversion) -> Drawn:
    better = sum(own < blind for own, blind in zip(each.own, each.blind, strict=True))
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
