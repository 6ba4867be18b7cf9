"""The experiments that come with fedkd, by name."""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "configs"


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
