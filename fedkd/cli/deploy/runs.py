"""`fedkd deploy status` and `stop`: how a server and its runs stand."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fedkd.cli.common import answer, line, say
from fedkd.cli.watch import NoBrowser, Port, follow

State = Annotated[Path, typer.Option("--state", help="The server's state folder.", metavar="DIR")]


def status(
    *,
    state: State,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Follow what was submitted last from a page in the browser."),
    ] = False,
    port: Port = 0,
    no_browser: NoBrowser = False,
) -> None:
    """Say which clients are connected, and which runs there were; with --watch, follow the last.

    Example: fedkd deploy status --state state
    """
    from dataclasses import asdict

    from fedkd.federation.deploy.superlink import Server

    if watch:
        from fedkd.jobs.watch import last_submitted

        submitted = last_submitted(state)
        follow(submitted, state=state, port=port, browser=not no_browser)
        return
    with Server.read(state).control() as control:
        nodes, runs = control.nodes(), control.runs()
    marks = {True: ("online ", "green"), False: ("offline", "red")}
    clients = [{"name": n.name, "node": n.id, "online": n.online} for n in nodes]
    answer(
        {"clients": clients, "runs": [asdict(run) for run in runs]},
        *(Text.assemble(marks[node.online], f"  {node.name}") for node in nodes),
        *(line(f"run {run.id}  {run.status}  {run.started}") for run in runs),
    )


def stop(
    *,
    state: State,
    server: Annotated[bool, typer.Option("--server", help="Stop the server too.")] = False,
) -> None:
    """Stop the runs that are under way; with --server the server as well.

    A stopped run keeps its finished rounds: submit --resume goes on from them.

    Example: fedkd deploy stop --state state --server
    """
    from fedkd.federation.deploy.superlink import Server

    running = Server.read(state)
    stopped = []
    with running.control() as control:
        for run in control.runs():
            if not run.over:
                control.stop(run.id)
                stopped.append(run.id)
                say(f"stopped run {run.id}")
    if server:
        running.stop()
        say("stopped the server")
    answer({"stopped": stopped, "server": server})
