"""`fedkd simulate`: a federation on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.common import (
    Config,
    Override,
    Resume,
    RunDir,
    beside,
    say,
    say_summary,
)


def simulate(
    config: Config,
    *,
    override: Override = None,
    folder: RunDir = None,
    resume: Resume = False,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="A run with clients.asynchronous, simulated or deployed: its clients answer in "
            "the order that they had there, and the student must be the same to the bit.",
        ),
    ] = None,
) -> None:
    """Simulate a federation on this machine.

    Writes a run folder: the resolved config, every round, the student, and report.html.

    Example: fedkd simulate demo --set method.name=dsfl --out runs/dsfl
    """
    from fedkd.api.running import simulate as run

    done = run(config, override or (), out=folder, resume=resume, replay=replay, progress=beside)
    say_summary(done.summary, done.path)
    if replay is not None:
        say(f"replayed: the student is that of {replay}, to the bit")
