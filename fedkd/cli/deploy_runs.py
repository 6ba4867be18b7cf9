"""`fedkd deploy status` and `stop`: how a server and its runs stand."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.common import AsJson, out, say
from fedkd.cli.watch import NoBrowser, Port, follow

State = Annotated[Path, typer.Option("--state", help="The server's state folder.", metavar="DIR")]


def status(
    *,
    state: State,
    as_json: AsJson = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Follow what was submitted last from a page in the browser."),
    ] = False,
    port: Port = 0,
    no_browser: NoBrowser = False,
) -> None:
    """Say which clients are connected, and which runs there were; with --watch, follow the last."""
    from dataclasses import asdict

    from fedkd.federation.deploy.superlink import Server

    if watch:
        from fedkd.jobs.watch import last_submitted

        submitted = last_submitted(state)
        follow(submitted, state=state, port=port, browser=not no_browser, as_json=as_json)
        return
    with Server.read(state).control() as control:
        nodes, runs = control.nodes(), control.runs()
    if as_json:
        clients = [{"name": n.name, "node": n.id, "online": n.online} for n in nodes]
        typer.echo(json.dumps({"clients": clients, "runs": [asdict(r) for r in runs]}, indent=2))
        return
    for node in nodes:
        mark = "[green]online [/green]" if node.online else "[red]offline[/red]"
        out.print(f"{mark}  {node.name}", highlight=False)
    for run in runs:
        say(f"run {run.id}  {run.status}  {run.started}")


def stop(
    *,
    state: State,
    server: Annotated[bool, typer.Option("--server", help="Stop the server too.")] = False,
) -> None:
    """Stop the runs that are under way; with --server the server as well.

    A stopped run keeps its finished rounds: submit --resume goes on from them.
    """
    from fedkd.federation.deploy.superlink import Server

    running = Server.read(state)
    with running.control() as control:
        for run in control.runs():
            if not run.over:
                control.stop(run.id)
                say(f"stopped run {run.id}")
    if server:
        running.stop()
        say("stopped the server")
