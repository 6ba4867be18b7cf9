"""The fenced blocks of the documents: where each stands, what it holds, and why it is not run."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
"""Notebooks: `make docs` runs them."""
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if TUTORIALS not in path.parents),
]
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```",
    flags=re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    document: str
    line: int
    language: str
    text: str
    reason: str
    """Why it is not run; empty where it is."""

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def read(path: Path) -> Iterator[Block]:
    """The blocks of a document, in their order."""
    text = path.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start("indent")) + 1
        document = str(path.relative_to(ROOT))
        yield Block(document, line, found["language"], found["text"], found["reason"] or "")


def lines(block: Block) -> list[list[str]]:
    """The commands of a block of a shell, each in words, without comments and variables' values."""
    text = block.text.replace("\\\n", " ")
    words = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [_without_variables(line) for line in words if _without_variables(line)]


def _without_variables(line: list[str]) -> list[str]:
    while line and re.match(r"\w+=", line[0]):
        line = line[1:]
    return line


BLOCKS = [block for path in DOCUMENTS for block in read(path)]


def of(*languages: str) -> list[Block]:
    """All blocks in these languages that have no reason not to be run."""
    return [each for each in BLOCKS if each.language in languages and not each.reason]
