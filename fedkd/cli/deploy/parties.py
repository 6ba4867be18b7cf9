"""`fedkd deploy keys`, `server`, `client`, `status`, `stop`: who takes part, and is it running."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fedkd.cli.common import answer, line, say

State = Annotated[Path, typer.Option("--state", help="The server's state folder.", metavar="DIR")]


def keys(
    folder: Annotated[
        Path, typer.Argument(help="Where they go, and join those that are there.", metavar="DIR")
    ],
    *,
    server: Annotated[
        list[str] | None,
        typer.Option(help="A name or address by which clients reach the server.", metavar="HOST"),
    ] = None,
    client: Annotated[
        list[str] | None, typer.Option(help="A client to make a key for.", metavar="NAME")
    ] = None,
) -> None:
    """Make a CA, the server's certificate, and a key for each client.

    Give each client its own key and ca.crt, and clients/*.pub, by which sites know each other under
    secure aggregation; nothing else. ca.key signs new servers: keep it off the server.

    Example: fedkd deploy keys keys --server fed.example.org --client hospital-a
    """
    from fedkd.federation.deploy.keys import make

    made = list(make(folder, servers=server or (), clients=client or ()))
    answer({"made": made}, *(line(f"made {path}") for path in made))


def server(
    *,
    state: Annotated[
        Path, typer.Option("--state", help="Its state folder, made if missing.", metavar="DIR")
    ],
    keys: Annotated[
        Path, typer.Option("--keys", help="What 'fedkd deploy keys' made.", metavar="DIR")
    ],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "0.0.0.0",  # noqa: S104
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 9400,
) -> None:
    """Run the server until it is stopped (Ctrl-C).

    It lets in the clients whose public keys are in DIR/clients. From other machines only clients
    are answered: experiments are submitted on the server's own machine.

    Example: fedkd deploy server --state state --keys keys
    """
    from fedkd.federation.deploy import processes, superlink

    processes.end_with_parent()
    superlink.serve(state, keys, host=host, port=port)


def client(
    site: Annotated[Path, typer.Argument(help="The site's own file.", metavar="SITE.toml")],
) -> None:
    """Run a site until it is stopped (Ctrl-C).

    SITE.toml says what the site's data may be used for, and nothing from the server can loosen it:
    see docs/deploy.md for every line.

    Example: fedkd deploy client SITE.toml
    """
    from fedkd.federation.deploy import processes, supernode
    from fedkd.federation.deploy.site import Policy

    processes.end_with_parent()
    supernode.serve(Policy.load(site))


def status(*, state: State) -> None:
    """Say which clients are connected, and which runs there were.

    Example: fedkd deploy status --state state
    """
    from dataclasses import asdict

    from fedkd.federation.deploy.superlink import Server

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
