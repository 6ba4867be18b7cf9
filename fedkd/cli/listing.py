"""`fedkd methods`, `fedkd tasks` and `fedkd data`: what is known by name."""

import json
from typing import Any

import typer
from rich.markup import escape

from fedkd.cli.common import AsJson, out, say


def methods(*, as_json: AsJson = False) -> None:
    """List the federated methods: what each sends, needs and returns."""
    from dataclasses import asdict

    from fedkd.methods import BUILT_IN, find

    cards = {name: asdict(find(name).card) for name in BUILT_IN}
    if as_json:
        typer.echo(json.dumps(cards, indent=2))
        return
    for name, card in cards.items():
        out.print(f"[bold]{name}[/bold]  [dim]{escape(card['paper'])}[/dim]")
        for heading in ("sends", "needs", "returns"):
            out.print(f"  {heading:<8}{escape(card[heading])}", highlight=False)
        out.print(f"  models  {'may differ' if card['unlike_models'] else 'must be equal'}")
        out.print(f"  privacy {escape(_units(card))}\n", highlight=False)


def tasks(*, as_json: AsJson = False) -> None:
    """List the tasks: what each is for, its targets, and the scores that suit it."""
    from fedkd.tasks import BUILT_IN, find

    kinds = {
        name: {
            "about": kind.about,
            "targets": kind.targets,
            "scores": list(kind.scores),
            "default": list(kind.default),
        }
        for name, kind in ((name, find(name)) for name in BUILT_IN)
    }
    if as_json:
        typer.echo(json.dumps(kinds, indent=2))
        return
    for name, kind in kinds.items():
        out.print(f"[bold]{name}[/bold]  {escape(str(kind['about']))}")
        for heading in ("targets", "scores", "default"):
            value = kind[heading]
            text = value if isinstance(value, str) else ", ".join(value)
            out.print(f"  {heading:<8}{escape(text)}", highlight=False, soft_wrap=True)
    say("\nA score of your own: a torchmetrics metric, 'package.module:Class', see docs/tasks.md.")


def data(*, as_json: AsJson = False) -> None:
    """List the data sets known by name, and where each was looked for: $FEDKD_DATA first."""
    from fedkd.data import NAMES, fetched, locations

    places = {name: locations(name) for name in NAMES}
    if as_json:
        found = {
            name: [{"folder": folder, "complete": here} for folder, here in looked]
            for name, looked in places.items()
        }
        typer.echo(json.dumps(found, indent=2))
        return
    for name, looked in places.items():
        here = any(complete for _, complete in looked)
        absent = "fetched on first use" if fetched(name) else "get it first, see docs/data.md"
        out.print(f"[bold]{name}[/bold]  {'here' if here else f'not here: {absent}'}")
        for folder, complete in looked:
            mark = "[green]found[/green]" if complete else "[dim]no   [/dim]"
            out.print(f"  {mark}  {escape(folder)}", highlight=False, soft_wrap=True)
    say("\nYour own: data.name is the path of a .csv or .npz file, or of a folder of .npy files.")


def _units(card: dict[str, Any]) -> str:
    """The units of [privacy] that a method runs under."""
    if card["no_dp"]:
        return f"none: {card['no_dp']}"
    units = ["record", *(["client-votes", "client-logits"] if card["client_units"] else [])]
    paid = [*card["counts"], *card["sums"]]
    return ", ".join(units) + ("; pays for its " + " and ".join(paid) if paid else "")
