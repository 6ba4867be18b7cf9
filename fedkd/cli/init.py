"""`fedkd init`: an experiment for one's own file."""

from pathlib import Path
from typing import Annotated

import typer

from fedkd.cli.common import answer, line


def init(
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            help="A file or a folder of data.", show_default="the only one in this folder"
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="What to learn, by name: see 'fedkd tasks'.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="The column of labels; may be repeated.")
    ] = None,
    public: Annotated[
        Path | None,
        typer.Option(
            help="A file or a folder of the same form that all parties may see: the proxy set, and "
            "of texts what a vocabulary is learned from.",
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--out", help="The file.", show_default="NAME.toml")
    ] = None,
) -> None:
    """Write an experiment for your own file: look at it, guess, and say what was guessed and why.

    What is written is checked first: `fedkd simulate` runs it as it is. If something is missing one
    line says what, and nothing is written.

    Example: fedkd init --data patients.csv --label outcome
    """
    from dataclasses import asdict

    from fedkd.data.looking import Wished
    from fedkd.jobs import init as writing
    from fedkd.reports import looked as reports

    known = Wished(
        task=task, labels=tuple(label or ()), public=None if public is None else str(public)
    )
    done = writing.init(data, file, known)
    guessed = [guess for guess in done.guesses if guess.why]
    lines = [f"next: fedkd simulate {done.file}"]
    if private := [guess.key for guess in done.guesses if guess.private]:
        lines.insert(
            0,
            f"before others see {done.file}: put in what is publicly known in place of what your "
            f"records gave: {', '.join(private)}",
        )
    value = {"file": done.file, "guesses": [asdict(guess) for guess in done.guesses]}
    answer(value, reports.guessed(guessed, "guessed"), *map(line, lines))
