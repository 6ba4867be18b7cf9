"""Links from a run's page back to the comparisons that it is part of.

A comparison is written after the pages of its runs, so it adds itself to them; a page that is
written again keeps the links of the page that was there.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from markupsafe import escape

from fedkd.files import write_atomically

_BEGIN, _END = "<!--comparisons-->", "<!--/comparisons-->"


@dataclass(frozen=True)
class ComparedIn:
    """A page that a run's page leads to: its relative address and its name."""

    address: str
    name: str


def address(file: Path, folder: Path) -> str | None:
    """The relative address of a file for a page in `folder`; None where there is no such file."""
    if not file.is_file():
        return None
    return quote(Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix())


def compared(page: Path) -> tuple[ComparedIn, ...]:
    """The comparisons that a run's page leads to and that are still there.

    Only names of files are taken from the page, which may be anybody's.
    """
    if not page.is_file():
        return ()
    _, _, rest = page.read_text(encoding="utf-8", errors="replace").partition(_BEGIN)
    addresses = re.findall(r'href="([^"]*)"', rest.partition(_END)[0])
    return _named(page, (page.parent / unquote(each) for each in addresses))


def link_back(pages: Iterable[Path], comparison: Path) -> None:
    """Add a link to a comparison to those of its runs' pages that there are.

    Raises:
        StorageError: a page cannot be written.
    """
    for page in filter(Path.is_file, pages):
        text = page.read_text(encoding="utf-8")
        others = (page.parent / unquote(each.address) for each in compared(page))
        links = markup(_named(page, (*others, comparison)))
        before, found, rest = text.partition(_BEGIN)
        if found and not rest.startswith(links.removeprefix(_BEGIN)):
            write_atomically(page, before + links + rest.partition(_END)[2])


def markup(comparisons: Iterable[ComparedIn]) -> str:
    """The part of a page that holds the links."""
    links = ", ".join(
        f'<a href="{escape(each.address)}">{escape(each.name)}</a>' for each in comparisons
    )
    line = f'<p class="compared">Compared with other runs in {links}.</p>' if links else ""
    return f"{_BEGIN}{line}{_END}"


def _named(page: Path, files: Iterable[Path]) -> tuple[ComparedIn, ...]:
    """Those of the files that are pages, each once, in order."""
    there = dict.fromkeys(
        file.resolve() for file in files if file.suffix == ".html" and file.is_file()
    )
    return tuple(
        ComparedIn(found, f"{file.parent.name}/{file.name}")
        for file in there
        if (found := address(file, page.parent)) is not None
    )
