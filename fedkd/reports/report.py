"""Reports on disk: a run's, and the comparison of several, as pages or as Markdown."""

from collections.abc import Sequence
from pathlib import Path

from fedkd.files import write_atomically
from fedkd.reports import html, links, markdown
from fedkd.reports.sections import comparison, federation


def write(folder: Path) -> Path:
    """Write `report.html` into a finished run's folder, and return its path.

    Raises:
        RunFolderError: the folder is no finished run, or a file in it is missing or corrupt.
    """
    report = folder / "report.html"
    text = html.render(federation.of(folder), links.compared(report))
    write_atomically(report, text)
    return report


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Write a page that compares runs, methods by seeds, to `out`, and return its path.

    It leads to the runs' pages, and they are changed to lead back to it.

    Raises:
        RunFolderError: no run was given, or a folder is no finished run.
        StorageError: the page, or a link in a run's page, cannot be written.
    """
    text = html.render(comparison.of(folders, out.parent))
    markdown.make_way(out)
    write_atomically(out, text)
    links.link_back([folder / "report.html" for folder in folders], out)
    return out


def write_markdown(folder: Path, out: Path) -> Path:
    """Write a run's report as Markdown to `out`, its charts in a folder beside it.

    Raises:
        RunFolderError: as in `write`.
    """
    return markdown.write(federation.of(folder), out)


def write_comparison_markdown(folders: Sequence[Path], out: Path) -> Path:
    """Write a comparison as Markdown to `out`, its charts in a folder beside it.

    Raises:
        RunFolderError: as in `write_comparison`.
    """
    return markdown.write(comparison.of(folders, out.parent), out)
