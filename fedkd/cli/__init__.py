"""The command `fedkd`: parse, call, print; nothing else.

Rooms are imported inside commands, so that `--help` does not wait for torch.
"""

import logging
import os
import sys
import threading
from typing import Annotated, NoReturn

import typer

from fedkd.cli.audit import audit
from fedkd.cli.check import data
from fedkd.cli.command import command_of
from fedkd.cli.common import err
from fedkd.cli.compare import compare, report
from fedkd.cli.configs import configs
from fedkd.cli.deploy import deploy
from fedkd.cli.distil import distil
from fedkd.cli.export import export
from fedkd.cli.init import init
from fedkd.cli.listing import forms, methods, models, tasks
from fedkd.cli.predict import predict
from fedkd.cli.simulate import simulate
from fedkd.cli.sweep import sweep
from fedkd.cli.watch import watch
from fedkd.errors import FedkdError, StorageError
from fedkd.version import __version__
from fedkd.warning_log import Warnings

app = typer.Typer(
    name="fedkd",
    help="Federated and data-free knowledge distillation: parties who may not share data, and need "
    "not share a model, teach one good model together.",
    epilog="Start with: fedkd simulate demo. Each command's --help has an example; Tab completes "
    "names after fedkd --install-completion.",
    no_args_is_help=True,
    suggest_commands=False,  # click does
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # what stands in brackets, such as [data], is no markup
)
for group in (data, deploy, audit):
    app.add_typer(group)
WORKER_NAME = "fedkd-client"
"""The threads of the in-process grid, which is not imported for `--help`."""


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer's
    if value:
        typer.echo(f"fedkd {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks, and what clients log.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - its callback does it, before a command is missed
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    log = logging.getLogger("fedkd")
    # Opacus and absl give the root logger handlers of their own, which would print every traceback.
    log.propagate = debug
    log.handlers = [logging.NullHandler() if debug else Warnings(_say_beside)]
    if debug:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)


def _say_beside(text: str) -> None:
    # Not by `err`: a live display has put its own stream here, and prints above itself.
    sys.stderr.write(f"{text}\n")


for command in (
    *(init, simulate, distil, compare, sweep, report, watch, export, predict),
    *(configs, methods, forms, models, tasks),
):
    app.command()(command)


def main() -> NoReturn:
    """Run the command; an error that was foreseen is one line, and its own exit status."""
    try:
        command_of(app)(prog_name="fedkd")
    except FedkdError as error:
        sys.exit(_say_error(str(error), error.exit_status))
    except OSError as error:
        # Of a file it is the caller's to mend, as a StorageError is; else something failed.
        status = StorageError.exit_status if error.filename else FedkdError.exit_status
        sys.exit(_say_error(f"{error.filename or 'file'}: {error.strerror or error}", status))
    sys.exit(0)


def script() -> NoReturn:
    """`main` as a process of its own, which a client that never returns cannot keep or crash."""
    status: str | int | None = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code
    if any(thread.name == WORKER_NAME for thread in threading.enumerate()):
        # Python would end around a client that computes on, and torch would abort the process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)
    sys.exit(status)


def _say_error(text: str, status: int) -> int:
    if "--debug" in sys.argv:
        err.print_exception()
    err.print(
        "error:", text, style="red", markup=False, highlight=False, soft_wrap=not err.is_terminal
    )
    return status
