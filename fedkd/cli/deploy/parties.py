"""`fedkd deploy keys`, `server`, `client`: who takes part."""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.common import answer, line


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
