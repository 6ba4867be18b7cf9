"""What a run goes on from: its files by name, each with its size and SHA-256."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedkd.errors import LedgerError, RunFolderError
from fedkd.files import storing, sync
from fedkd.privacy.ledger import Anchor, Ledger

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Named:
    """A file as it was when it was named; one that only grows may have grown since."""

    size: int
    """Bytes."""
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> "Named":
        """The name of a content."""
        return cls(len(content), hashlib.sha256(content).hexdigest())


Manifest = Mapping[str, Named]
"""By path under the run folder."""


class Namer:
    """Names files once they are on the disk, each once for as long as nobody writes it anew."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._named: dict[Path, tuple[tuple[int, ...], Named]] = {}

    def __call__(self, files: Iterable[Path]) -> dict[str, Named]:
        """The manifest of files under the run folder, which are all there.

        Raises:
            StorageError: one cannot be read, or does not reach the disk.
        """
        stamps = {file: _stamp(file) for file in files}
        new = [file for file, at in stamps.items() if self._named.get(file, ((),))[0] != at]
        with ThreadPoolExecutor(_AT_ONCE) as pool:  # a disk takes many files in the time of one
            for file, named in zip(new, pool.map(_name, new), strict=True):
                self._named[file] = stamps[file], named
            list(pool.map(_sync, {file.parent for file in new}))
        return {file.relative_to(self._folder).as_posix(): self._named[file][1] for file in stamps}


def _stamp(file: Path) -> tuple[int, ...]:
    with storing(file):
        at = file.stat()
    return at.st_ino, at.st_size, at.st_mtime_ns


def _name(file: Path) -> Named:
    with storing(file):
        sync(file)
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256")
            return Named(opened.tell(), found.hexdigest())


def _sync(folder: Path) -> None:
    with storing(folder):
        sync(folder)


def check(folder: Path, manifest: Manifest, by: Path) -> None:
    """Refuse to go on from files that are not the ones that were named.

    Args:
        folder: the run folder.
        manifest: what was named there.
        by: the file that holds the manifest.

    Raises:
        RunFolderError: names the first file that is missing or differs.
    """
    for name, named in manifest.items():
        file = folder / name
        if not file.is_file():
            raise cannot_resume(folder, f"its {name} is missing")
        with storing(file):
            content = file.read_bytes()
        grows = file.suffix == ".jsonl"  # whatever came later belongs to what was cut off
        if Named.of(content[: named.size] if grows else content) != named:
            raise cannot_resume(folder, f"its {name} is not the one that {by.name} names")


def unnamed_rounds(file: Path, folder: Path, rounds: int) -> bytes:
    """The lines of so many rounds, of which nothing but themselves tells what they were.

    Raises:
        RunFolderError: they are not all there, or no lines of rounds.
    """
    try:
        with storing(file):
            content = file.read_bytes() if file.exists() else b""
        lines = [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
        found = [json.loads(line)["round"] for line in lines[:rounds]]
    except (KeyError, TypeError, ValueError) as error:
        raise cannot_resume(folder, f"its {file.name} is damaged") from error
    if found != list(range(1, rounds + 1)):
        raise cannot_resume(folder, f"its {file.name} lacks rounds")
    return b"".join(lines[:rounds])


def check_ledger(folder: Path, ledger: Path, seen: Collection[Anchor]) -> None:
    """Refuse to go on with a ledger that is not the one which a run spent from.

    Args:
        folder: the run folder.
        ledger: the ledger's file.
        seen: its heads as the run saw them; several where clients share it, each of which saw it
            when it last answered.

    Raises:
        RunFolderError: it is missing, damaged, another one or an older copy.
    """
    if not ledger.exists():
        raise cannot_resume(
            folder, f"ledger {str(ledger)!r} is missing, with what was spent", "restore it"
        )
    try:
        found = Ledger(ledger)
        for head in seen:
            found.check_anchor(head)
    except LedgerError as error:
        raise RunFolderError(f"run folder {str(folder)!r} cannot be resumed: {error}") from error


def to_json(manifest: Manifest) -> dict[str, Any]:
    """A manifest as JSON values."""
    return {name: asdict(named) for name, named in manifest.items()}


def from_json(content: Mapping[str, Any]) -> dict[str, Named]:
    """What `to_json` gave.

    Raises:
        TypeError, AttributeError: it gave something else.
    """
    return {name: Named(**named) for name, named in content.items()}


def digest(value: Any) -> str:
    """The SHA-256 of a JSON value, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def cannot_resume(
    folder: Path, why: str, remedy: str = "restore it, or start again with another --out"
) -> RunFolderError:
    """The error that says why a run cannot go on."""
    return RunFolderError(f"run folder {str(folder)!r} cannot be resumed: {why}; {remedy}")
