"""`fedkd audit secret`: what models give away of a secret in a client's texts."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fedkd.cli.audit.found import say_found
from fedkd.cli.common import Config, Override, beside


def audit_secret(
    config: Config,
    *,
    override: Override = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="The run folder of the audit.", show_default="runs/NAME-secret"),
    ] = None,
    text: Annotated[str, typer.Option(help="With one {} for the digits.")] = "my number is {}",
    digits: Annotated[int, typer.Option(help="How many random digits.", min=1, max=6)] = 4,
    secrets: Annotated[int, typer.Option(help="How many are planted.", min=1)] = 4,
    times: Annotated[int, typer.Option(help="How often each is planted.", min=1)] = 4,
    client: Annotated[int, typer.Option(help="In whose texts.", min=0)] = 0,
    label: Annotated[
        str | None,
        typer.Option(help="Class of the planted texts.", show_default="the first"),
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="Of the bound on epsilon.", min=0.5, max=0.999)
    ] = 0.95,
) -> None:
    """Plant secrets in a client's texts, and measure how far models expose them.

    Runs the experiment with texts such as "my number is 4821", whose digits are drawn at random,
    among a client's records. Then ranks each by its loss among all that the digits might have been:
    the exposure of Carlini et al. 2019, arXiv:1802.08232, of the student and of the client's own
    model. For classifiers of texts and language models. Exit status 3 on a VIOLATION.

    Example: fedkd audit secret text_classification --digits 4 --times 8
    """
    from fedkd.api.audits import audit

    planted: dict[str, Any] = {"text": text, "digits": digits, "secrets": secrets, "times": times}
    planted |= {"client": client, "label": label}
    how: dict[str, Any] = {"confidence": confidence, "out": folder}
    say_found(audit("secret", config, override or (), **planted, **how, progress=beside))
