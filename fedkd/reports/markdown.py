"""A report as GitHub Markdown with its charts as SVG files, such as for a paper's appendix.

Pictures of records are left out, and said to be: a paper goes further than a page in a run's
folder.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from fedkd.errors import RunFolderError
from fedkd.files import make_folder, write_atomically
from fedkd.reports.charts.drawing import Chart
from fedkd.reports.charts.examples import Examples
from fedkd.reports.charts.gallery import Gallery
from fedkd.reports.grid import Cell, Grid, Link, Mark, Noted
from fedkd.reports.parts import Facts, FileText, Folded, Items, Paragraph, Part, Report

_COLUMNS = 15
"""The most that the table of a chart may have; a wider one stands in the page alone."""


def write(report: Report, out: Path) -> Path:
    """Write a report to `out` and its charts into a folder beside it, `NAME-charts`.

    Raises:
        RunFolderError: there is a folder.
        StorageError: a file cannot be written.
    """
    make_way(out)
    charts = [part for each in report.sections for part in each.parts if isinstance(part, Chart)]
    folder = out.with_name(f"{out.stem}-charts")
    if charts:
        make_folder(folder)
    for chart in charts:
        write_atomically(folder / f"{chart.name}.svg", chart.document)
    write_atomically(out, render(report, quote(folder.name)))
    return out


def make_way(out: Path) -> None:
    """Make the folder that a report goes into.

    Raises:
        RunFolderError: there is a folder where the report should be.
        StorageError: it cannot be made.
    """
    if out.is_dir():
        raise RunFolderError(f"{str(out)!r} is a folder: expected the path of the page to write")
    make_folder(out.parent)


def render(report: Report, charts: str) -> str:
    """The text.

    Args:
        report: what it holds.
        charts: the address of the folder of charts.
    """
    return "\n\n".join(_blocks(report, charts)) + "\n"


def _blocks(report: Report, charts: str) -> Iterator[str]:
    yield f"# {_plain(report.name)}"
    about = [f"fedkd {report.kind}", *report.about]
    if report.started is not None:
        about.append(f"{report.started[:16].replace('T', ' ')} UTC")
    yield " · ".join(map(_plain, about))
    findings = "".join(f" **{_plain(each)}**" for each in report.findings)
    yield f"{_plain(report.lead)}{findings}"
    if report.facts:
        yield _plain(report.facts)
    yield f"> **{_plain(report.stamp)}** {_plain(report.privacy)}"
    for notice in report.notices:
        yield f"> **{_plain(notice.title)}** {_plain(notice.text)}"
    if report.tiles:
        yield _table(
            ("Key figure", "Value", "Beside it"),
            "lll",
            ((each.label, each.value, each.note) for each in report.tiles),
        )
    for section in report.sections:
        yield f"## {_plain(section.title)}"
        for part in section.parts:
            yield from _part(part, charts)


def _part(part: Part, charts: str) -> Iterator[str]:
    match part:
        case Chart():
            yield f"### {_plain(part.title)}"
            yield f"![{_plain(part.title)}]({charts}/{part.name}.svg)"
            yield _plain(part.caption)
            if part.grid is not None and len(part.grid.columns) <= _COLUMNS:
                yield from _grid(part.grid)
        case Grid():
            yield from _grid(part)
        case Paragraph():
            yield _inline(part.text)
        case Items():
            yield "\n".join(f"- {_inline(line)}" for line in part.lines)
        case FileText():
            longest = max(map(len, re.findall("`+", part.text)), default=0)
            fence = "`" * max(3, longest + 1)
            yield f"{fence}{part.language}\n{part.text.rstrip()}\n{fence}"
        case Facts():
            yield _table(("", "Value"), "ll", part.pairs)
        case Folded():
            yield f"### {_plain(part.summary)}"
            yield from _part(part.part, charts)
        case Gallery() | Examples():
            yield f"{_plain(part.caption)} The pictures stand in the HTML report alone."


def _grid(grid: Grid) -> Iterator[str]:
    sides = "".join("r" if each.kind == "number" else "l" for each in grid.columns)
    yield _table((each.name for each in grid.columns), sides, grid.rows)
    if grid.note:
        yield _inline(grid.note)


def _table(heads: Iterable[str], sides: str, rows: Iterable[Iterable[Cell]]) -> str:
    """A table; `sides` has a letter for each column, `r` where it is right-aligned."""
    ruler = ("---:" if side == "r" else "---" for side in sides)
    lines = [map(_plain, heads), ruler, *(map(_cell, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    match cell:
        case Noted():
            return _plain(f"{cell.text} {cell.note}".strip())
        case Link(address=None):
            return _plain(cell.text)
        case Link():
            return f"[{_plain(cell.text)}]({cell.address})"
        case Mark():
            return f"**{cell.outcome}**"
    return _plain(cell)


def _inline(text: str) -> str:
    """Words in which what stands between backticks is code."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if n % 2 else _plain(part) for n, part in enumerate(parts))


def _plain(text: str) -> str:
    """Text as it is: one line, in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>|~$&#])", r"\\\g<1>", " ".join(text.splitlines()))
