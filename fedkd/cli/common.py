"""What all commands share: where they print, options that mean the same everywhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from fedkd.config import Experiment
    from fedkd.federation.answers import Observer

out, err = Console(), Console(stderr=True)

Config = Annotated[Path, typer.Argument(help="The experiment, a TOML file.", metavar="CONFIG")]
Override = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value, such as method.name=dsfl; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on after the last finished round, to the same bits but for DP noise; a finished "
        "run goes on for more rounds.",
    ),
]
RunDir = Annotated[
    Path | None, typer.Option("--out", help="The run folder.", show_default="runs/NAME")
]


@contextmanager
def watch(experiment: "Experiment", console: Console = out) -> "Iterator[Observer]":
    """A display of the experiment's rounds."""
    from fedkd.runs.display import Display

    title = f"{experiment.name}: {experiment.method.name}, seed {experiment.seed}"
    with Display(console, title=title, rounds=experiment.rounds) as display:
        yield display


def run_folder(experiment: "Experiment", folder: Path | None) -> Path:
    """The run folder that was named, or the experiment's own."""
    return folder or Path(experiment.output.folder) / experiment.name


def say_summary(summary: dict[str, Any], folder: Path) -> None:
    """Print what a run came to, and where its report is."""
    from fedkd.runs import tables

    out.print(tables.summary(summary))
    say_report(folder / "report.html")


def say_report(path: Path) -> None:
    """Say where a report is."""
    out.print("report:", str(path.resolve()), markup=False, highlight=False, soft_wrap=True)
