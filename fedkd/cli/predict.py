"""`fedkd predict`: what a run's student says of texts, pictures, rows and arrays."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from fedkd.cli.common import Run, answer, import_beside
from fedkd.errors import UsageError

if TYPE_CHECKING:
    from fedkd.jobs.predicting.prediction import Prediction
    from fedkd.jobs.predicting.prediction import Text as Said

_SCORES = 5


def predict(
    run: Run,
    *,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="A text; several by naming it again.")
    ] = None,
    second: Annotated[
        list[str] | None,
        typer.Option("--second", help="Of pairs the second text, such as a question's context."),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="A picture, a folder of them, a table of rows or of texts, a .npy or an .npz; "
            "several by naming it again.",
        ),
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
) -> None:
    """Ask a finished run's student about texts, pictures or rows. Nothing else of it is read.

    Example: fedkd predict runs/reviews --text "Good food, and never late."
    """
    from fedkd.jobs.predict import predict as ask

    asked: list[Said] | list[Path]
    if files:
        if text or second:
            raise UsageError("--input and --text both say what to ask about: leave one of them out")
        asked = list(files)
    else:
        asked = _texts(text or (), second)
    import_beside(run)
    found = ask(run, asked, cut=cut, among=among, most=most)
    value = [each.as_json() for each in found]
    answer(value, *(_shown(each, by_line=among is not None) for each in found))


def _texts(text: "list[str] | tuple[str, ...]", second: list[str] | None) -> "list[Said]":
    if not text:
        raise UsageError("nothing to ask about: name texts by --text, or files by --input")
    if second is not None and len(second) != len(text):
        raise UsageError(
            f"{len(text)} texts and {len(second)} second ones: name --second once for each --text"
        )
    return list(text) if second is None else list(zip(text, second, strict=True))


def _shown(found: "Prediction", *, by_line: bool) -> Group:
    """What was asked about, and what the student says of it."""
    asked = found.input
    shown = " | ".join(asked) if isinstance(asked, tuple) else str(asked)
    likely = [f"{name} {value:.3f}" for name, value in list(found.scores.items())[:_SCORES]]
    scores = "".join(f"\n    {one}" for one in likely) if by_line else "  ".join(likely)
    whole: dict[str, Any] = {"no_wrap": True, "overflow": "ignore"}
    said = Text.assemble("  ", (str(found), "bold"), f"  {scores}", **whole)
    return Group(Text(shown, style="dim", **whole), said)
