"""The page `reference/commands.md`: every command's `--help`, made from the command line itself.

Typer's own generator (`typer utils docs`) takes what is in brackets, such as `[data]`, for markup.
"""

import warnings
from collections.abc import Iterator

with warnings.catch_warnings():
    # typer < 0.21, which flwr 1.41 pins, imports what click 8.5 calls deprecated.
    warnings.filterwarnings("ignore", "'click", DeprecationWarning)
    import click

    from fedkd.cli import app
    from fedkd.cli.command import command_of

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGE = "reference/commands.md"
OPENING = """# Commands

What `fedkd COMMAND --help` says, of every command. This page is made from the program itself.

"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to the site. See mkdocs' events."""
    files.append(File.generated(config, PAGE, content=page()))
    return files


def page() -> str:
    """The page, in Markdown."""
    return OPENING + "\n".join(_sections(command_of(app), None, "fedkd"))


def _sections(command: click.Command, above: click.Context | None, name: str) -> Iterator[str]:
    """A section for a command, and one for each of the commands in it."""
    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=above)
    yield f"## `{name}`\n\n{(command.help or '').strip()}\n"
    yield f"```text\n{' '.join([name, *command.collect_usage_pieces(context)])}\n```\n"
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    if rows := [_row(*record) for record in records if record is not None]:
        yield "\n".join(["| | |", "|---|---|", *rows]) + "\n"
    if command.epilog:
        yield f"{command.epilog.strip()}\n"
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            inner = command.get_command(context, each)
            if inner is not None and not inner.hidden:
                yield from _sections(inner, context, f"{name} {each}")


def _row(names: str, about: str) -> str:
    """An option or an argument as a row of a table."""
    told = about.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
    return f"| `{names}` | {told} |"
