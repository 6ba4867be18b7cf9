"""Tables of an audit's report."""

from fedkd.auditing.findings import Audited
from fedkd.auditing.poisoning.outcomes import Poisoning, rows
from fedkd.reports import audit_tables, poisoning
from fedkd.reports.grid import Cell, Grid, GridColumn, Mark, Noted, columns


def claims(found: Audited) -> Grid | None:
    """Each claim beside what was measured; None where nothing was."""
    if not found.verdicts:
        return None
    cells: list[tuple[Cell, ...]] = [
        (
            Noted(
                each.what,
                f"{each.claim.unit}, {each.claim.adjacency}, delta {each.claim.delta:g}, "
                f"{100 * each.confidence:g}% confidence",
            ),
            Mark(each.outcome),
            f"{each.claim.epsilon:.3f}",
            f"{each.epsilon:.3f}",
            f"{each.ceiling:.2f}",
            f"{each.canaries:,}",
        )
        for each in found.verdicts
    ]
    heads = (GridColumn("What", "words"), GridColumn("Verdict", "text"))
    numbers = map(GridColumn, ("Claimed", "Measured", "Ceiling", "Canaries"))
    note = (
        "Claimed: epsilon cannot be more, if the code is right. Measured: it cannot be less. "
        "Ceiling: the most that these canaries could have shown. CONSISTENT: the claim could have "
        "been refuted and was not. NO POWER: it could not have been. UNEXPLAINED: far less was "
        "seen than the claimed noise lets through, so the attack missed what it should see."
    )
    return Grid("Claims against measurements", (*heads, *numbers), tuple(cells), note)


def checks(found: Audited) -> Grid | None:
    """What was looked at that is right or wrong; None where nothing was."""
    if not found.checks:
        return None
    heads = (
        GridColumn("Check", "text"),
        GridColumn("Verdict", "text"),
        GridColumn("Found", "words"),
    )
    cells: list[tuple[Cell, ...]] = [
        (each.what, Mark(each.outcome), each.found) for each in found.checks
    ]
    return Grid("Checks of structure", heads, tuple(cells))


def attacks(found: Audited) -> Grid | None:
    """How well each attack told members from others; None where there was none."""
    if not found.attacks:
        return None
    cells: list[tuple[Cell, ...]] = [
        (
            Noted(each.name, f"on {each.on}"),
            audit_tables.area(each.roc.auc),
            *map(audit_tables.share, each.roc.at.values()),
            f"{each.epsilon:.2f}",
            f"{each.verdict.ceiling:.2f}" if each.verdict else "–",
            f"{each.roc.members + each.roc.others:,}",
            Mark(each.verdict.outcome) if each.verdict else "no claim",
        )
        for each in found.attacks
    ]
    names = ("AUC", "TPR at 1% FPR", "TPR at 0.1% FPR", "Epsilon is at least", "Ceiling", "Asked")
    heads = (GridColumn("Attack", "words"), *map(GridColumn, names), GridColumn("Verdict", "text"))
    note = (
        "In brackets: 95% intervals; the threshold of a rate is taken as given. An attack that "
        "fails proves nothing, so its verdict is never CONSISTENT: the next one may succeed."
    )
    return Grid("Attacks in figures", heads, tuple(cells), note)


def poisoned(found: Poisoning) -> Grid:
    """The honest run, then each attack by share of hostile clients."""
    names = [f"{head[0].upper()}{head[1:]}" for head in poisoning.heads(found)]
    cells = [
        (row.attack, poisoning.share(row), *poisoning.cells(found, row)) for row in rows(found)
    ]
    heads = columns("Hostile clients", "Share", *names)
    return Grid("Attacks of hostile clients in figures", heads, tuple(cells))
