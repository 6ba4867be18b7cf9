"""An audit's report: a self-contained HTML file, and the same in Markdown and in JSON."""

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fedkd.auditing.findings import Audited
from fedkd.auditing.inversion import Inversion
from fedkd.auditing.verdicts import Claim
from fedkd.config import Experiment
from fedkd.files import write_atomically
from fedkd.reports import audit_tables, html, markdown, poisoning
from fedkd.reports.charts.gallery import Gallery, strip
from fedkd.reports.charts.poisoning import poisoning_chart
from fedkd.reports.charts.roc import roc_chart
from fedkd.reports.parts import Items, Part, Report, section, sections
from fedkd.reports.sections import audit as audit_grids
from fedkd.version import __version__


def write(found: Audited, folder: Path, experiment: Experiment, *, claim: Claim | None) -> Path:
    """Write `audit.html`, `audit.md` and `audit.json` into a folder, and return the page's path.

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
    report = _of(found, experiment, claim, facts)
    markdown.write(report, folder / "audit.md")
    write_atomically(folder / "audit.html", html.render(report))
    return folder / "audit.html"


def _of(
    found: Audited, experiment: Experiment, claim: Claim | None, facts: dict[str, str]
) -> Report:
    outcomes = [each.outcome for each in found.outcomes]
    violated, unexplained = "VIOLATION" in outcomes, "UNEXPLAINED" in outcomes
    said = [
        "At least one claim does not hold." if violated else "",
        "Part of it could not be audited: see UNEXPLAINED." if unexplained else "",
    ]
    threats = dict.fromkeys(_threats(found))
    lines = [*audit_tables.words(found), *(f"attacker: {each}" for each in threats)]
    return Report(
        kind="audit",
        name=experiment.name,
        lead="What is claimed, what was measured, and the most that could have been measured.",
        findings=tuple(filter(None, said)),
        facts=" · ".join(f"{_heading(name)}: {value}" for name, value in facts.items()),
        stamp="NO DP" if claim is None else f"epsilon {claim.epsilon:.4g}",
        privacy=_privacy(claim),
        protected=claim is not None and not violated and not unexplained,
        sections=sections(
            [
                section("claims", "Claims against measurements", [audit_grids.claims(found)]),
                section("structure", "What no statistic shows", [audit_grids.checks(found)]),
                section("attacks", "What attackers got", _attacked(found)),
                section("hostile", "What hostile clients do", _poisoned(found)),
                section("images", "Images drawn from answers", map(_drawn, found.inversions)),
                section("uncovered", "What epsilon does not cover", _uncovered(experiment, claim)),
                section("terms", "In words", [_items(lines)]),
            ]
        ),
    )


def _privacy(claim: Claim | None) -> str:
    if claim is None:
        return (
            "No differential privacy: nothing is claimed, so nothing here can be violated. What "
            "follows is what an attacker got."
        )
    return (
        f"By the ledgers each client’s data cost {claim} at most: an upper bound by arithmetic, "
        "about code that may be wrong. What follows bounds it from below."
    )


def _items(lines: Iterable[str], *, note: bool = False) -> Items | None:
    """Sentences of lines that lack a capital and a full stop; None where there is none."""
    sentences = tuple(f"{line[0].upper()}{line[1:]}." for line in lines)
    return Items(sentences, note) if sentences else None


def _heading(name: str) -> str:
    return name if name == "fedkd" else f"{name[0].upper()}{name[1:]}"


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


def _uncovered(experiment: Experiment, claim: Claim | None) -> list[Part | None]:
    """What epsilon says nothing of, a sentence each; nothing where there is no epsilon."""
    if claim is None:
        return []
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
    return [_items(lines)]


def _attacked(found: Audited) -> list[Part | None]:
    targets = dict.fromkeys(each.on for each in found.attacks)
    charts: list[Part | None] = []
    for number, target in enumerate(targets):
        on_target = [each for each in found.attacks if each.on == target]
        claims = [each.verdict.claim for each in on_target if each.verdict is not None]
        charts.append(roc_chart(f"roc-{number}", on_target, claims[0] if claims else None))
    return [*charts, audit_grids.attacks(found)]


def _poisoned(found: Audited) -> list[Part | None]:
    """A chart, a table, and what it means; nothing where no client was hostile."""
    if (attacked := found.poisoning) is None:
        return []
    about = [f"`{name}`: {does}" for name, does in poisoning.about(attacked).items()]
    return [
        poisoning_chart(attacked),
        audit_grids.poisoned(attacked),
        _items(poisoning.notes(attacked), note=True),
        Items(tuple(f"{line}." for line in about), note=True) if about else None,
    ]


def _drawn(each: Inversion) -> Gallery:
    """One client's images as an attacker drew them, above the client's nearest records."""
    better = sum(near < blind for near, blind in zip(each.distances, each.blind, strict=True))
    names = (f"Drawn for client {each.client}", f"Client {each.client}’s nearest records")
    strips = (
        strip(name, np.asarray(part, dtype=np.float64).clip(0, 1))
        for name, part in zip(names, (each.drawn, each.originals), strict=True)
    )
    caption = (
        f"{better} of {len(each.classes)} classes are drawn nearer to the client’s mean record "
        "than the mean public image is, which takes no attack."
    )
    return Gallery(tuple(strips), caption, alt="{name}: {count} images")


def _threats(found: Audited) -> list[str]:
    return [*(each.threat for each in found.attacks), *(each.threat for each in found.verdicts)]
