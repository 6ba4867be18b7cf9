"""`fedkd deploy`: the same experiment on real servers and clients."""

import typer

from fedkd.cli.deploy.experiments import app, layout, local, share, submit
from fedkd.cli.deploy.parties import client, keys, server
from fedkd.cli.deploy.runs import status, stop

deploy = typer.Typer(
    name="deploy",
    help="The same experiment on real servers and clients, over TLS, each site by its own policy.",
    epilog="Try it on this machine: fedkd deploy local demo. Then docs/deploy.md.",
    no_args_is_help=True,
)
for command in (local, keys, share, layout, app, server, client, submit, status, stop):
    deploy.command()(command)
