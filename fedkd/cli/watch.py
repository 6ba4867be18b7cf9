"""`fedkd watch`: a run, followed from a page in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.common import answer, as_json, say
from fedkd.cli.completion import runs

Port = Annotated[
    int,
    typer.Option(
        "--port", min=0, max=65535, help="Where on 127.0.0.1.", show_default="a free port"
    ),
]
NoBrowser = Annotated[
    bool, typer.Option("--no-browser", help="Print the page's address and open nothing.")
]


def watch(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run folder; one that is not there yet is waited for.",
            metavar="RUN",
            autocompletion=runs,
        ),
    ],
    *,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            metavar="DIR",
            help="A deployment's server's state folder, to see who is connected, and to stop it.",
            show_default="that of 'deploy local'",
        ),
    ] = None,
    port: Port = 0,
    no_browser: NoBrowser = False,
) -> None:
    """Follow a simulation or a deployment from a page in the browser, while it runs.

    Rounds, clients, failures, privacy spent, bytes, the expected end. The page is on this machine
    alone and changes nothing, but that it can stop a deployment. With --json: what it would show
    now, once.

    Example: fedkd watch runs/demo
    """
    follow(run, state=state, port=port, browser=not no_browser)


def follow(run: Path, *, state: Path | None, port: int, browser: bool) -> None:
    """Serve the page of a run until Ctrl-C, or print once what it would show."""
    if not as_json():
        say(f"following {run}")  # before what takes a second to load

    from fedkd.jobs import watch as watching

    if as_json():
        answer(watching.look_once(run, state=state))
        return

    def tell(url: str) -> None:
        say(f"at {url}")
        say("the address is for you alone; Ctrl-C ends the page, not the run")

    watching.watch(run, state=state, port=port, browser=browser, on_start=tell)
