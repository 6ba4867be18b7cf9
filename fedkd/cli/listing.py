"""`fedkd methods`, `tasks`, `forms`, `models` and `data`: what is known by name."""

from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from fedkd.cli.common import answer, line
from fedkd.cli.entry import Entry, settings

if TYPE_CHECKING:
    from pydantic import BaseModel


def methods() -> None:
    """List the federated methods: what each sends, needs and returns.

    Its parameters are keys of [method], shown with their defaults; docs/methods.md says what they
    do.

    Example: fedkd methods --json
    """
    from dataclasses import asdict

    from fedkd.methods import BUILT_IN, find

    found = {name: find(name) for name in BUILT_IN}
    cards: dict[str, dict[str, Any]] = {
        name: asdict(each.card) | {"parameters": _defaults(each.Params())}
        for name, each in found.items()
    }
    entries = [
        Entry(
            name,
            card["paper"],
            {
                **{heading: card[heading] for heading in ("sends", "needs", "returns")},
                "models": "may differ" if card["unlike_models"] else "must be equal",
                "privacy": _units(card),
                "parameters": settings(card["parameters"]),
            },
        )
        for name, card in cards.items()
    ]
    answer(cards, *entries)


def tasks() -> None:
    """List the tasks: what each is for, its targets, and the scores that suit it.

    Example: fedkd tasks
    """
    from fedkd.tasks import BUILT_IN, find

    kinds: dict[str, dict[str, Any]] = {
        name: {
            "about": kind.about,
            "targets": kind.targets,
            "scores": list(kind.scores),
            "default": list(kind.default),
        }
        for name, kind in ((name, find(name)) for name in BUILT_IN)
    }
    entries = [
        Entry(
            name,
            kind["about"],
            {
                "targets": kind["targets"],
                "scores": ", ".join(kind["scores"]),
                "default": ", ".join(kind["default"]),
            },
        )
        for name, kind in kinds.items()
    ]
    own = "A score of your own: a torchmetrics metric, 'package.module:Class', see docs/tasks.md."
    answer(kinds, *entries, line(""), line(own))


def forms() -> None:
    """List the forms of knowledge: what each compares and asks for, and where it comes from.

    One is chosen by [[knowledge]] name in a distillation; those of logits are a method's loss too.
    Parameters are shown with their defaults; docs/distil.md says what is learned beside.

    Example: fedkd forms
    """
    from fedkd.learning.forms import BUILT_IN

    known: dict[str, dict[str, Any]] = {
        name: {
            "paper": form.paper,
            "compares": form.looks_at,
            "layers": 0 if form.looks_at in ("logits", "answers") else form.least,
            "asks": list(form.asks),
            "couples": form.couples,
            "first": form.first,
            "joint": form.joint,
            "parameters": _defaults(form.Params()),
        }
        for name, form in BUILT_IN.items()
    }
    entries = [
        Entry(
            name,
            form["paper"],
            {
                "compares": _compared(form),
                "asks": f"the task for {', '.join(form['asks'])}" if form["asks"] else "",
                "needs": _needed(form),
                "parameters": settings(form["parameters"]),
            },
        )
        for name, form in known.items()
    ]
    answer(known, *entries)


def models() -> None:
    """List the models known by name: what each takes, needs, and its options.

    Options stand beside the name, { name = "mlp", hidden = [64] }, and are shown with their
    defaults; docs/models.md says how to start from a checkpoint.

    Example: fedkd models
    """
    from dataclasses import asdict

    from fedkd.models.known import known

    found = {name: asdict(model) for name, model in known().items()}
    entries = [
        Entry(
            name,
            model["about"],
            {
                "takes": model["takes"],
                "needs": "" if model["installed"] else model["needs"],
                "options": settings(model["options"]),
                "source": model["source"],
            },
        )
        for name, model in found.items()
    ]
    own = "Your own: 'package.module:Class', see docs/models.md."
    answer(found, *entries, line(""), line(own))


def data() -> None:
    """List the data sets known by name, and where each was looked for."""
    from fedkd.data import NAMES, fetched, locations

    places = {name: locations(name) for name in NAMES}
    found = {
        name: [{"folder": folder, "complete": here} for folder, here in looked]
        for name, looked in places.items()
    }
    shown: list[RenderableType] = []
    for name, looked in places.items():
        here = any(complete for _, complete in looked)
        absent = "fetched on first use" if fetched(name) else "get it first, see docs/data.md"
        shown.append(Entry(name, "here" if here else f"not here: {absent}"))
        shown += [line(f"  {'found' if complete else 'no   '}  {f}") for f, complete in looked]
    own = "Your own: data.name is the path of a .csv or .npz file, or of a folder of .npy files."
    answer(found, *shown, line(""), line(own))


def _defaults(parameters: "BaseModel") -> dict[str, Any]:
    """Parameters by name with their values, as JSON values."""
    values = {key: getattr(parameters, key) for key in type(parameters).model_fields}
    return {
        key: value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        for key, value in values.items()
    }


def _units(card: dict[str, Any]) -> str:
    """The units of [privacy] that a method runs under."""
    if card["no_dp"]:
        return f"none: {card['no_dp']}"
    units = ["record", *(["client-votes", "client-logits"] if card["client_units"] else [])]
    paid = [*card["counts"], *card["sums"]]
    return ", ".join(units) + ("; pays for its " + " and ".join(paid) if paid else "")


def _compared(form: dict[str, Any]) -> str:
    """What of the two models a form compares."""
    layers = {
        "logits": "what models answer",
        "answers": "what models answer",
        "student": "layers of the student, the last one unless named, and what models answer",
        "features": "layers, the last ones unless named",
        "maps": "layers that give maps, the last ones unless named",
        "named": f"layers that are named, {form['layers']} or more",
    }
    return layers[form["compares"]]


def _needed(form: dict[str, Any]) -> str:
    """What a form asks of a run."""
    needs = []
    if form["couples"]:
        needs.append("whole batches, so no [privacy]")
    elif form["joint"]:
        needs.append("layers together, so no [privacy]")
    if form["first"]:
        needs.append("epochs of its own before the student's training")
    return "; ".join(needs)
