"""`fedkd deploy`: the same experiment on real servers and clients."""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.common import (
    Config,
    Override,
    ResumeDeployed,
    RunDir,
    out,
    run_folder,
    say,
    say_summary,
    watch,
)
from fedkd.cli.deploy_runs import State, status, stop
from fedkd.errors import UsageError

deploy = typer.Typer(
    name="deploy",
    help="The same experiment on real servers and clients, over TLS, each site by its own policy.",
    epilog="Try it on this machine: fedkd deploy local demo. Then docs/deploy.md.",
    no_args_is_help=True,
)

Shared = Annotated[
    Path | None,
    typer.Option(
        "--shared", help="What 'fedkd deploy share' wrote; else made anew from [data].",
        metavar="FILE",
    ),
]  # fmt: skip


@deploy.command()
def local(
    config: Config,
    *,
    override: Override = None,
    folder: RunDir = None,
    resume: ResumeDeployed = False,
) -> None:
    """Try a deployment on this machine: server, sites, TLS, keys and policies, then take it down.

    Beside the run folder, RUN-federation holds what each party would hold on its own machine.
    """
    from fedkd.config import load
    from fedkd.jobs.local import local as run

    experiment = load(config, override or ())
    path = run_folder(experiment, folder)
    with watch(experiment) as observer:
        summary = run(experiment, path, observer, resume=resume)
    say_summary(summary, path)


@deploy.command()
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
    """
    from fedkd.federation.deploy.keys import make

    for path in make(folder, servers=server or (), clients=client or ()):
        say(f"made {path}")


@deploy.command()
def share(
    config: Config,
    *,
    file: Annotated[Path, typer.Option("--out", help="The file to write.", metavar="FILE")] = Path(
        "shared.safetensors"
    ),
    override: Override = None,
) -> None:
    """Write what all parties hold: the experiment's proxy set and test set.

    Give it to every client; an experiment names it by its SHA-256.
    """
    from hashlib import sha256

    from fedkd.config import load
    from fedkd.files import write_atomically
    from fedkd.jobs.submit import share as shared

    content = shared(load(config, override or ()))
    write_atomically(file, content)
    say(f"wrote {file}")
    say(f"SHA-256 {sha256(content).hexdigest()}")


@deploy.command()
def layout(
    config: Config,
    *,
    folder: Annotated[Path, typer.Option("--out", help="The folder to make.", metavar="DIR")],
    server: Annotated[str, typer.Option(help="Where sites reach the server.", metavar="HOST:PORT")],
    client: Annotated[
        list[str] | None,
        typer.Option(help="A site's name, once for each; else client-0000...", metavar="NAME"),
    ] = None,
    override: Override = None,
) -> None:
    """Write what each party of a trial holds, for machines or containers that are to run it.

    Keys, the shared file, and for each site its SITE.toml and its part of the experiment's data.
    Example: fedkd deploy layout demo --out trial --server fed.example.org:9400
    """
    from fedkd.config import load
    from fedkd.jobs.local import lay_out

    lay_out(load(config, override or ()), folder, server=server, clients=client or ())
    say(f"laid out {folder}: hand out each site's part, and keep ca.key off the server")


@deploy.command()
def app(
    config: Config,
    *,
    folder: Annotated[Path, typer.Option("--out", help="The folder to make.", metavar="DIR")],
    clients: Annotated[
        int | None, typer.Option(min=1, help="How many take part; else clients.count.")
    ] = None,
    shared: Shared = None,
    override: Override = None,
) -> None:
    """Write an experiment as a Flower app: one pyproject.toml that holds no code.

    Prints its SHA-256, by which a site may allow this experiment and no other.
    """
    from fedkd.config import load
    from fedkd.federation.deploy.bundle import fingerprint
    from fedkd.files import write_atomically
    from fedkd.jobs import submit

    experiment = load(config, override or ())
    count = clients or experiment.clients.count
    if count is None:
        raise UsageError("--clients is missing: the experiment does not say how many take part")
    project, text = submit.app(experiment, submit.share(experiment, shared), count)
    if folder.exists():
        raise UsageError(f"folder {str(folder)!r} exists: name another with --out")
    folder.mkdir(parents=True)
    write_atomically(folder / "pyproject.toml", project)
    say(f"wrote {folder / 'pyproject.toml'}")
    say(f"SHA-256 {fingerprint(text)}")


@deploy.command()
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
    """
    from fedkd.federation.deploy import processes, superlink

    processes.end_with_parent()
    superlink.serve(state, keys, host=host, port=port)


@deploy.command()
def client(
    site: Annotated[Path, typer.Argument(help="The site's own file.", metavar="SITE.toml")],
) -> None:
    """Run a site until it is stopped (Ctrl-C).

    SITE.toml says what the site's data may be used for, and nothing from the server can loosen it:
    see docs/deploy.md for every line.
    """
    from fedkd.federation.deploy import processes, supernode
    from fedkd.federation.deploy.site import Policy

    processes.end_with_parent()
    supernode.serve(Policy.load(site))


@deploy.command()
def submit(
    config: Config,
    *,
    state: State,
    override: Override = None,
    folder: RunDir = None,
    shared: Shared = None,
    client: Annotated[
        list[str] | None,
        typer.Option(help="Who takes part; all registered clients unless given.", metavar="NAME"),
    ] = None,
    resume: ResumeDeployed = False,
    detach: Annotated[bool, typer.Option("--detach", help="Come back once it is started.")] = False,
) -> None:
    """Run an experiment on a server of this machine, and follow it to its end.

    Leaves the same run folder as a simulation. Ctrl-C stops the run. After a crash of the server,
    --resume goes on after the last finished round; while it runs, --resume follows it.
    """
    from fedkd.config import load
    from fedkd.federation.deploy.superlink import Server
    from fedkd.jobs.submit import submit as run

    experiment = load(config, override or ())
    path = run_folder(experiment, folder)
    with watch(experiment) as observer:
        summary = run(
            experiment,
            Server.read(state),
            path,
            observer,
            shared=shared,
            clients=client or (),
            resume=resume,
            detach=detach,
            on_start=lambda names: out.print(
                "clients:",
                ", ".join(f"{i} {name}" for i, name in enumerate(names)),
                highlight=False,
            ),
        )
    if summary is None:
        say(f"started; follow it by the same command with --resume, or see {path}")
        return
    say_summary(summary, path)


deploy.command()(status)
deploy.command()(stop)
