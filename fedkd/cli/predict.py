"""`fedkd predict`: what a run's student says of texts."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fedkd.cli.common import AsJson, import_beside, out


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    *,
    text: Annotated[
        list[str], typer.Option("--text", help="A text; several by naming the option again.")
    ],
    second: Annotated[
        list[str] | None,
        typer.Option("--second", help="Of pairs the second text, such as a question's context."),
    ] = None,
    among: Annotated[
        Path | None,
        typer.Option(
            help="Of retrieval: a table of the texts to choose from, such as a .txt, one a line."
        ),
    ] = None,
    most: Annotated[
        int | None, typer.Option(min=1, help="Of a student that writes: at most so many tokens.")
    ] = None,
    cut: Annotated[bool, typer.Option("--cut", help="Cut a text that is too long.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask a finished run's student about texts.

    Example: fedkd predict runs/reviews --text "Good food, and never late."
    """
    from dataclasses import asdict

    from fedkd.errors import UsageError
    from fedkd.jobs.predict import predict as ask
    from fedkd.jobs.said import Text

    if second is not None and len(second) != len(text):
        raise UsageError(
            f"{len(text)} texts and {len(second)} second ones: name --second once for each --text"
        )
    asked: list[Text] = list(text) if second is None else list(zip(text, second, strict=True))
    import_beside(run)
    found = ask(run, asked, cut=cut, among=among, most=most)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2, ensure_ascii=False))
        return
    for each in found:
        shown = each.text if isinstance(each.text, str) else " | ".join(each.text)
        out.print(f"[dim]{escape(shown)}[/dim]", highlight=False, soft_wrap=True, emoji=False)
        ranked = sorted(each.scores.items(), key=lambda pair: -pair[1])[:5]
        likely = [f"{escape(name)} {value:.3f}" for name, value in ranked]
        scores = "  ".join(likely) if among is None else "".join(f"\n    {one}" for one in likely)
        answer = f"  [bold]{escape(each.answer)}[/bold]  {scores}"
        out.print(answer, highlight=False, soft_wrap=True, emoji=False)
