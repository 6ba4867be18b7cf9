"""What a report is made of, whatever it is written as: a page (`html.py`) or Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from fedkd.reports.charts.drawing import Chart
from fedkd.reports.charts.examples import Examples
from fedkd.reports.charts.gallery import Gallery
from fedkd.reports.grid import Grid


@dataclass(frozen=True)
class Tile:
    """A key figure: what it is, its value, and what to hold it against."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Paragraph:
    """Words; what stands between backticks is a name from a file or a program."""

    kind: ClassVar = "paragraph"
    text: str
    note: bool = False
    """Whether it is a remark to what stands above it."""
    id: str | None = None


@dataclass(frozen=True)
class Items:
    """Sentences, one below the other."""

    kind: ClassVar = "items"
    lines: tuple[str, ...]
    note: bool = False


@dataclass(frozen=True)
class FileText:
    """The text of a file."""

    kind: ClassVar = "text"
    text: str
    language: str


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    kind: ClassVar = "facts"
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Folded:
    """What is shown to whoever asks for it."""

    kind: ClassVar = "folded"
    summary: str
    part: Grid | FileText | Facts


Part = Chart | Grid | Paragraph | Items | FileText | Facts | Folded | Gallery | Examples


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; `id` is unique in the report."""

    id: str
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Notice:
    """A warning at the top: what is wrong, and how so; `id` is unique in the report."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Report:
    """All of a report."""

    kind: Literal["run", "distillation", "comparison", "audit", "sweep"]
    name: str
    lead: str
    """What it is about, in one sentence."""
    stamp: str
    """Privacy in two or three words."""
    privacy: str
    """The same in sentences."""
    protected: bool
    sections: tuple[Section, ...]
    about: tuple[str, ...] = ()
    """What stands beside its kind, such as the method."""
    started: str | None = None
    """In ISO 8601, UTC."""
    findings: tuple[str, ...] = ()
    """What came out, a sentence each."""
    facts: str = ""
    notices: tuple[Notice, ...] = ()
    tiles: tuple[Tile, ...] = ()


def section(id: str, title: str, parts: Iterable[Part | None]) -> Section | None:
    """A section of the parts that there are; None where there is none."""
    found = tuple(part for part in parts if part is not None)
    return Section(id, title, found) if found else None


def sections(found: Sequence[Section | None]) -> tuple[Section, ...]:
    """Those that there are."""
    return tuple(each for each in found if each is not None)
