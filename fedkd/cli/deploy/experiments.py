"""`fedkd deploy local`, `share`, `layout`, `app`, `submit`: what is run on servers and clients."""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.common import (
    Config,
    Override,
    ResumeDeployed,
    RunDir,
    answer,
    beside,
    line,
    run_folder,
    say,
    say_summary,
)
from fedkd.cli.deploy.runs import State
from fedkd.errors import UsageError

Shared = Annotated[
    Path | None,
    typer.Option(
        "--shared", help="What 'fedkd deploy share' wrote; else made anew from [data].",
        metavar="FILE",
    ),
]  # fmt: skip


def local(
    config: Config,
    *,
    override: Override = None,
    folder: RunDir = None,
    resume: ResumeDeployed = False,
) -> None:
    """Try a deployment on this machine: server, sites, TLS, keys and policies, then take it down.

    Beside the run folder, RUN-federation holds what each party would hold on its own machine.

    Example: fedkd deploy local demo --set rounds=2 --out runs/trial
    """
    from fedkd.api.showing import rounds
    from fedkd.config import load
    from fedkd.jobs.local import local as run

    experiment = load(config, override or ())
    path = run_folder(experiment, folder)
    with rounds(experiment, beside) as observer:
        summary = run(experiment, path, observer, resume=resume)
    say_summary(summary, path)


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

    Example: fedkd deploy share experiment.toml --out shared.safetensors
    """
    from hashlib import sha256

    from fedkd.config import load
    from fedkd.files import write_atomically
    from fedkd.jobs.submit import share as shared

    content = shared(load(config, override or ()))
    write_atomically(file, content)
    digest = sha256(content).hexdigest()
    lines = (f"wrote {file}", f"SHA-256 {digest}")
    answer({"file": file, "sha256": digest}, *map(line, lines))


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
    text = f"laid out {folder}: hand out each site's part, and keep ca.key off the server"
    answer({"folder": folder}, line(text))


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

    Example: fedkd deploy app experiment.toml --out app --clients 3
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
    file, digest = folder / "pyproject.toml", fingerprint(text)
    write_atomically(file, project)
    answer({"file": file, "sha256": digest}, *map(line, (f"wrote {file}", f"SHA-256 {digest}")))


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

    Example: fedkd deploy submit experiment.toml --state state
    """
    from fedkd.api.showing import rounds
    from fedkd.config import load
    from fedkd.federation.deploy.superlink import Server
    from fedkd.jobs.submit import submit as run

    experiment = load(config, override or ())
    path = run_folder(experiment, folder)
    with rounds(experiment, beside) as observer:
        summary = run(
            experiment,
            Server.read(state),
            path,
            observer,
            shared=shared,
            clients=client or (),
            resume=resume,
            detach=detach,
            on_start=lambda names: say(
                "clients: " + ", ".join(f"{i} {name}" for i, name in enumerate(names))
            ),
        )
    if summary is None:
        text = f"started; follow it by the same command with --resume, or see {path}"
        answer({"run": path, "report": None, "summary": None}, line(text))
        return
    say_summary(summary, path)
