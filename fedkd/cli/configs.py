"""`fedkd configs`: the experiments that come with fedkd."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fedkd import configs as packaged
from fedkd.cli.common import answer, line
from fedkd.cli.completion import packaged_configs
from fedkd.cli.entry import Entry
from fedkd.errors import UsageError
from fedkd.files import write_atomically
from fedkd.names import unknown


def configs(
    name: Annotated[
        str | None,
        typer.Argument(
            help="One of them: it is printed.", metavar="NAME", autocompletion=packaged_configs
        ),
    ] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option("--out", help="Write it to a file instead, which is yours.", metavar="FILE"),
    ] = None,
) -> None:
    """List the experiments that come with fedkd, or show one, or copy it.

    Any command that takes an experiment takes their names.

    Example: fedkd configs demo --out mine.toml
    """
    if name is None:
        if file is not None:
            raise UsageError("--out is for one experiment: name it, fedkd configs NAME --out FILE")
        _list()
        return
    source = packaged.FOLDER / f"{name}.toml"
    if name not in packaged.names():
        raise UsageError(unknown("packaged experiment", name, packaged.names()))
    about, text = packaged.about(name), source.read_text(encoding="utf-8")
    if file is None:
        answer(asdict(about) | {"toml": text}, line(text.rstrip()))
        return
    if file.exists():
        raise UsageError(f"file {str(file)!r} exists: name another with --out")
    write_atomically(file, text)
    answer({"file": file}, line(f"wrote {file}: fedkd {about.command} {file}"))


def _list() -> None:
    known = {name: packaged.about(name) for name in packaged.names()}
    entries = [
        Entry(name, f"{each.command}, on {each.data}", {"": each.about})
        for name, each in known.items()
    ]
    answer({name: asdict(each) for name, each in known.items()}, *entries)
