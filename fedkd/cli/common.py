"""What all commands share: where they print, options that mean the same everywhere."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import click
import typer
from rich.console import Console

from fedkd.names import look_beside

if TYPE_CHECKING:
    from fedkd.config import Experiment
    from fedkd.federation.answers import Observer

out, err = Console(), Console(stderr=True)

Config = Annotated[
    Path,
    typer.Argument(
        help="The experiment: a TOML file, or the name of one that comes with fedkd, such as demo.",
        metavar="CONFIG",
    ),
]
Override = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value, such as method.name=dsfl; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
_AFTER = "Go on after the last finished {}, to the same bits but for DP noise."
ResumeDeployed = Annotated[bool, typer.Option("--resume", help=_AFTER.format("round"))]
ResumeStages = Annotated[bool, typer.Option("--resume", help=_AFTER.format("stage"))]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help=_AFTER.format("round") + " A finished run goes on for more rounds."
    ),
]
RunDir = Annotated[
    Path | None, typer.Option("--out", help="The run folder.", show_default="runs/NAME")
]


_TOLD_ELSEWHERE = ("fedkd.federation.client", "fedkd.federation.cohort")
"""Logs of answers that failed: a site's terminal shows them, and here the round's own line does."""


class Warnings(logging.Handler):
    """Shows what the library warns of, each text once, as a line on the standard error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        text = record.getMessage()
        if text not in self._said and record.name not in _TOLD_ELSEWHERE:
            self._said.add(text)
            # Not by `err`: a live display has put its own stream here, and prints above itself.
            sys.stderr.write(f"warning: {text}\n")


@contextmanager
def watch(experiment: "Experiment", console: Console = out) -> "Iterator[Observer]":
    """A display of the experiment's rounds."""
    from fedkd.reports.display import Display
    from fedkd.tasks import headline

    title = f"{experiment.name}: {experiment.method.name}, seed {experiment.seed}"
    score = headline(experiment.task)
    with Display(console, title=title, rounds=experiment.rounds, score=score) as display:
        yield display


def import_beside(path: Path) -> None:
    """Let import paths, `"module:Name"`, lead to modules beside what a command runs.

    For commands of one's own alone: at a site an experiment comes from elsewhere. A run folder may
    be anybody's, so of one it is where the command is run.

    Args:
        path: a config file, or a run folder.
    """
    look_beside(Path() if path.is_dir() else path.parent)


def run_folder(experiment: "Experiment", folder: Path | None) -> Path:
    """The run folder that was named, or the experiment's own."""
    return folder or Path(experiment.output.folder) / experiment.name


def say_summary(summary: dict[str, Any], folder: Path) -> None:
    """Print what a run came to, and where its report is."""
    from fedkd.reports import tables

    out.print(tables.summary(summary))
    say_report(folder / "report.html")


def say_report(path: Path) -> None:
    """Say where a report is."""
    say(f"report: {path.resolve()}")


def say(text: str) -> None:
    """Print a line as it is: what stands in brackets is no markup, and nothing is wrapped."""
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def command_of(app: typer.Typer) -> click.Command:
    """An app as a command that knows the help of its arguments.

    Under click 8.5 the typer that Flower asks for, below 0.21, loses it.
    """
    command = typer.main.get_command(app)
    _restore_help(command)
    return command


def _restore_help(command: click.Command) -> None:
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _restore_help(each)
    elif command.callback is not None:
        hints = get_type_hints(command.callback, include_extras=True)
        for parameter in command.params:
            for about in getattr(hints.get(parameter.name or ""), "__metadata__", ()):
                parameter.help = about.help
