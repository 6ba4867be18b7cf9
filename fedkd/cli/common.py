"""What all commands share: options that mean the same everywhere, and where what is said goes.

What a command found goes to the standard output: for people, or as JSON where `--json` asks for it,
and then nothing else does. Work in progress is shown beside it, and nowhere under `--quiet`. Both
flags belong to every command (`fedkd.cli.command`), so no command has to know of them.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from fedkd.cli.completion import configs, runs, settings
from fedkd.cli.narrow import fitting
from fedkd.names import look_beside

if TYPE_CHECKING:
    from fedkd.config import Experiment

out, err = Console(), Console(stderr=True)

Config = Annotated[
    Path,
    typer.Argument(
        help="The experiment: a TOML file, or the name of one that comes with fedkd, such as demo.",
        metavar="CONFIG",
        autocompletion=configs,
    ),
]
Run = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN", autocompletion=runs)]
Override = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one value, such as method.name=dsfl; may be repeated.",
        metavar="KEY=VALUE",
        autocompletion=settings,
    ),
]
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

JSON, QUIET, _STARTING = "fedkd.json", "fedkd.quiet", "fedkd.starting"
"""Keys of `click.Context.meta`, which all contexts of one command line share."""


def as_json() -> bool:
    """Whether this command line asks for JSON."""
    return bool(_meta().get(JSON))


def _meta() -> dict[str, Any]:
    context = click.get_current_context(silent=True)
    return {} if context is None else context.meta


def beside() -> Console:
    """Where work in progress is shown."""
    _started()
    if _meta().get(QUIET):
        return Console(quiet=True)
    return err if as_json() else out


@contextmanager
def starting(what: str) -> Iterator[None]:
    """Say on a terminal what begins, until something else is said: libraries take seconds to load.

    Args:
        what: the command in words, such as `simulate demo`.
    """
    console = err if as_json() else out
    if console.is_terminal and not _meta().get(QUIET):
        shown = Spinner("dots", Text(f"{what}: loading libraries"), style="dim")
        live = Live(shown, console=console, refresh_per_second=4, transient=True)
        _meta()[_STARTING] = live
        live.start(refresh=True)
    try:
        yield
    finally:
        _started()


def _started() -> None:
    live: Live | None = _meta().pop(_STARTING, None)
    if live is not None:
        live.stop()


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


def answer(value: Any, *people: RenderableType) -> None:
    """Print what a command found, and where `--json` asks for it as JSON alone.

    Args:
        value: JSON values, and paths, which are written whole.
        people: the same for people; a table that is too wide for the terminal is shown row by row.
    """
    _started()
    if as_json():
        typer.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))
        return
    for each in people:
        _print(out, fitting(each))


def _plain(value: Any) -> Any:
    """As JSON knows it: paths are whole, no number is null, and an infinite one is `"inf"`."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return str(value.resolve()) if isinstance(value, Path) else value


def say_summary(summary: dict[str, Any], folder: Path) -> None:
    """Print what a run came to, and where its report is."""
    from fedkd.reports import tables

    report = folder / "report.html"
    value = {"run": folder, "report": report, "summary": summary}
    answer(value, tables.summary(summary), report_line(report))


def report_line(path: Path) -> Text:
    """Where a report is."""
    return line(f"report: {path.resolve()}")


def say(text: str) -> None:
    """Print a line for people, as it is: see `line`. Under `--json` beside what was found."""
    _started()
    _print(err if as_json() else out, line(text))


def say_step(text: str) -> None:
    """Print a line on work in progress."""
    _print(beside(), line(text))


def _print(console: Console, shown: RenderableType) -> None:
    # In a group: texts side by side are joined, and would forget not to be wrapped.
    console.print(Group(shown), crop=False)


def line(text: str) -> Text:
    """A line as it is: what stands in brackets is no markup, and nothing is wrapped."""
    return Text(text, no_wrap=True, overflow="ignore")
