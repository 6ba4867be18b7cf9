"""The experiments that come with fedkd, by name: the TOML files of this folder."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
_UNLESS_NAMED = "fashion-mnist-sample"


@dataclass(frozen=True)
class Packaged:
    """A packaged experiment.

    Attributes:
        about: the first sentence of its file.
        command: which command runs it, `simulate` or `distil`.
        data: the data set's name, or the file that it asks for.
        file: where it is.
    """

    about: str
    command: str
    data: str
    file: Path


def names() -> list[str]:
    """What may stand where a file is asked for, in the order of the alphabet."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find(path: Path | str) -> Path:
    """The file that is meant: the path itself, or a packaged experiment if it is the name of one.

    A file of one's own goes first. What leads nowhere is given back as it is, for the reader to
    complain of.
    """
    path = Path(path)
    named = str(path) == path.stem and path.stem in names()
    return FOLDER / f"{path.stem}.toml" if named and not path.is_file() else path


def about(name: str) -> Packaged:
    """What a packaged experiment says of itself.

    Args:
        name: one of `names`.
    """
    file = FOLDER / f"{name}.toml"
    text = file.read_text(encoding="utf-8")
    table = tomllib.loads(text)
    command = "simulate" if "clients" in table else "distil"
    data = str(table.get("data", {}).get("name", _UNLESS_NAMED))
    return Packaged(_first_sentence(text), command, data, file)


def _first_sentence(text: str) -> str:
    """Of the comment above all else, whose indented lines are commands."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("# ") or line.startswith("#  "):
            break
        lines.append(line.removeprefix("# "))
    sentence = re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(lines))[0]  # "et al. 2019" goes on
    return sentence.rstrip(":.") + "."
