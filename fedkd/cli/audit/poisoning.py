"""`fedkd audit poisoning`: what hostile clients do to an experiment, and what a defence saves."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fedkd.cli.audit.found import say_found
from fedkd.cli.common import Config, Override, beside
from fedkd.errors import UsageError

_NAMES = (
    "silent, label-flip, collusion, sign-and-scale, lma, cpa, fdla, pcfdla, top-k, in-part, "
    "backdoor, replacement, alie, inner-product"
)


def audit_poisoning(
    config: Config,
    *,
    override: Override = None,
    attacks: Annotated[
        str | None,
        typer.Option(
            help=f"Attacks by name, with commas between: {_NAMES}.", show_default="all that apply"
        ),
    ] = None,
    shares: Annotated[
        str, typer.Option(help="Shares of hostile clients, with commas between.")
    ] = "0.1,0.3",
    defence: Annotated[
        bool | None,
        typer.Option(
            "--defence/--no-defence",
            help="Only with, or only without, the server's [robust].",
            show_default="both",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, from the experiment's own on.")] = 1,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="The audit's folder.", show_default="runs/NAME-poisoning"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last run that is done.")
    ] = False,
) -> None:
    """Poison a federation: let some clients be hostile, and see what becomes of the student.

    Runs the experiment honest, then under each attack, by shares of the clients, without and with
    a defence: the experiment's [robust], or a deployment's default. Attackers collude; what they
    send has to pass the server's door like any upload. Prints the student's score, how often a
    backdoor opens, and how many uploads of hostile and of honest clients the defence left out;
    writes audit.html and audit.json. Which attacks apply depends on what clients send: answers are
    forged where they are sent, models where these are. Runs that are done are kept: go on with
    --resume.

    Example: fedkd audit poisoning demo --attacks collusion,lma --shares 0.3 --set rounds=2
    """
    from fedkd.api.audits import audit

    how: dict[str, Any] = {"attacks": _listed(attacks or ""), "defence": defence, "seeds": seeds}
    how |= {"shares": list(map(_share, _listed(shares))), "out": folder, "resume": resume}
    say_found(audit("poisoning", config, override or (), **how, progress=beside))


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(
            f"--shares: {text!r} is no number: expected such as 0.1,0.3, shares of the clients"
        ) from error
