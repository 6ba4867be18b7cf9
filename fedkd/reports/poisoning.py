"""What attacks did to a federation, as a table for a terminal and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fedkd.auditing.poisoning.attacks import ATTACKS
from fedkd.auditing.poisoning.outcomes import HONEST, Poisoning, PoisoningRow, rows
from fedkd.reports.figures import UNKNOWN, better, figure, name
from fedkd.reports.wording import percent, plural


def table(found: Poisoning) -> Table:
    """The honest run, then each attack by share: score and success, bare and defended."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, caption="\n".join(notes(found)))
    shown.add_column("hostile clients")
    shown.add_column("share", justify="right")
    for heading in heads(found):
        shown.add_column(heading, justify="right")
    for each in rows(found):
        shown.add_row(escape(each.attack), share(each), *cells(found, each))
    return shown


def heads(found: Poisoning) -> list[str]:
    """The headings of `cells`."""
    score = name(found.score)
    return [score, "defended", "success", "defended", "caught"]


def cells(found: Poisoning, row: PoisoningRow) -> list[str]:
    """A row's figures in words: scores, successes, and whom the defence left out."""
    return [
        figure(found.score, row.bare),
        figure(found.score, row.defended),
        *(UNKNOWN if each is None else percent(each)
          for each in (row.bare_success, row.defended_success)),
        _caught(found, row),
    ]  # fmt: skip


def share(row: PoisoningRow) -> str:
    """How many clients are hostile, in words."""
    return percent(row.share).replace(".0%", "%") if row.attack != HONEST else UNKNOWN


def _caught(found: Poisoning, row: PoisoningRow) -> str:
    runs = [r for r in found.runs if (r.attack, r.share) == (row.attack, row.share)]
    if not any(each.defended for each in runs):
        return UNKNOWN
    return f"{row.caught}, and {row.wronged} honest" if row.wronged else f"{row.caught}"


def notes(found: Poisoning) -> list[str]:
    """What the figures are, and what went wrong, a line each."""
    seeds = len({each.seed for each in found.runs})
    lines = [
        f"{plural(found.clients, 'client')}, {plural(seeds, 'seed')}{better(found.score)}",
        f"success: how often records of other classes with the trigger on them are called "
        f"{found.target}",
        "caught: uploads of hostile clients that the defence left out",
    ]
    if stopped := [each for each in found.runs if each.stopped]:
        lines.append(f"{plural(len(stopped), 'run')} stopped, such as by: {stopped[0].stopped}")
    if refused := sum(each.refused for each in found.runs):
        lines.append(f"the door refused {plural(refused, 'upload')}")
    return lines


def about(found: Poisoning) -> dict[str, str]:
    """By attack: what hostile clients do, and what they must know."""
    names = dict.fromkeys(each.attack for each in found.runs if each.attack != HONEST)
    known = {name: ATTACKS[name] for name in names}
    return {
        name: f"they {attack.does}; they know {attack.knows} uploads ({attack.paper})"
        for name, attack in known.items()
    }


def as_json(found: Poisoning) -> dict[str, Any]:
    """The same as JSON values."""
    return {
        "score": found.score.figure,
        "target": found.target,
        "clients": found.clients,
        "rows": [asdict(each) for each in rows(found)],
        "runs": [asdict(each) for each in found.runs],
    }


def worst(found: Poisoning, *, defended: bool) -> PoisoningRow | None:
    """The attack that cost the most; None where none ended in a score."""
    attacked: Sequence[PoisoningRow] = [
        each for each in rows(found) if each.attack != HONEST and _of(each, defended) is not None
    ]
    sign = 1 if found.score.higher else -1
    return min(attacked, key=lambda each: sign * (_of(each, defended) or 0.0), default=None)


def _of(row: PoisoningRow, defended: bool) -> float | None:  # noqa: FBT001
    return row.defended if defended else row.bare
