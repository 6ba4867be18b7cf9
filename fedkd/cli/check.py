"""`fedkd data`: which sets are known by name, and what a file of one's own holds."""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli import listing
from fedkd.cli.common import answer

data = typer.Typer(
    name="data",
    epilog="Your own: fedkd data check FILE, then fedkd init --data FILE.",
    invoke_without_command=True,
    rich_markup_mode="markdown",
)


@data.callback()
def _list(context: typer.Context) -> None:
    """List the data sets known by name; 'fedkd data check FILE' looks at your own.

    Each with where it was looked for: $FEDKD_DATA first.

    Example: fedkd data
    """
    if context.invoked_subcommand is None:
        listing.data()


@data.command()
def check(
    file: Annotated[Path, typer.Argument(help="A file or a folder of data.", metavar="FILE")],
    *,
    task: Annotated[
        str | None, typer.Option(help="What will be learned, by name: see 'fedkd tasks'.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="The column of labels; may be repeated.")
    ] = None,
) -> None:
    """Say what a file of your own holds, what is odd about it, and which lines suit it.

    What it prints is statistics of the records, for their owner alone. It writes nothing.

    Example: fedkd data check patients.csv --label outcome
    """
    from dataclasses import asdict

    from fedkd.data.looking import Wished, look
    from fedkd.reports import looked as reports

    looked = look(file, Wished(task=task, labels=tuple(label or ())))
    answer({"note": reports.NOTE, **asdict(looked)}, reports.tables(looked))
