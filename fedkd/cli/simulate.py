"""`fedkd simulate`: a federation on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.common import (
    Config,
    Override,
    Resume,
    RunDir,
    import_beside,
    run_folder,
    say,
    say_summary,
    watch,
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
    from fedkd.config import load
    from fedkd.jobs.simulate import simulate as run

    import_beside(config)
    experiment = load(config, override or ())
    path = run_folder(experiment, folder)
    with watch(experiment) as observer:
        summary = run(experiment, path, observer, resume=resume, replay=replay)
    say_summary(summary, path)
    if replay is not None:
        say(f"replayed: the student is that of {replay}, to the bit")
