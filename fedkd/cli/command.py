"""The app as one command: what all commands have in common is given to each of them here."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, get_type_hints

import click
import typer

from fedkd.cli.common import JSON, QUIET, starting

SERVING = {"deploy client", "deploy server"}
"""Commands that find nothing: they work until they are stopped."""

_COMPLETION = ("install_completion", "show_completion")


def command_of(app: typer.Typer) -> click.Command:
    """An app whose commands all take `--json` and `--quiet`, and say at once what they begin.

    Both flags may stand before the command's name too. Options that install completion are there,
    and not listed. Under click 8.5 the typer that Flower asks for, below 0.21, loses the help of
    arguments: each gets its own again.
    """
    root = typer.main.get_command(app)
    for parameter in root.params:
        if isinstance(parameter, click.Option) and parameter.name in _COMPLETION:
            parameter.hidden = True
    root.params += [_quiet(), _json()]
    for name, command in leaves(root):
        hints = get_type_hints(command.callback, include_extras=True)
        for parameter in command.params:
            for about in getattr(hints.get(parameter.name or ""), "__metadata__", ()):
                parameter.help = about.help
        command.params.append(_quiet())
        if name in SERVING or command.callback is None:
            continue
        command.params.append(_json())
        command.callback = _announced(name, command.params, command.callback)
    return root


def leaves(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Each command that does something, by its whole name without the program's."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    if command.invoke_without_command and name:
        yield name, command
    for each, inner in command.commands.items():
        yield from leaves(inner, f"{name} {each}".strip())


def _quiet() -> click.Option:
    return _flag("--quiet", QUIET, "Show no work in progress: what was found, warnings, errors.")


def _json() -> click.Option:
    return _flag("--json", JSON, "What was found as JSON, for programs: docs/cli.md.")


def _flag(name: str, key: str, about: str) -> click.Option:
    def note(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's
        if value:
            context.meta[key] = True

    return click.Option([name], is_flag=True, expose_value=False, help=about, callback=note)


def _announced(
    name: str, parameters: list[click.Parameter], run: Callable[..., Any]
) -> Callable[..., Any]:
    of = next((each.name for each in parameters if isinstance(each, click.Argument)), None)

    @wraps(run)
    def begin(**given: Any) -> Any:
        about = given.get(of or "")
        first = about[0] if isinstance(about, list) and about else about
        with starting(name if first is None else f"{name} {first}"):
            return run(**given)

    return begin
