"""Contents one after another in files that only grow, and are deleted whole."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from fedkd.errors import StorageError
from fedkd.files import storing, sync

_FILE = re.compile(r"(\d{6,})\.bin")
_FULL = 2**26
"""Bytes from which on a file takes no more: what is needed no more lies there until all of it is.
"""


class Place(NamedTuple):
    """Where a content stands: in which file, from which byte on, and how many bytes."""

    file: int
    start: int
    size: int


class Contents:
    """Files of contents in a folder. Who appends or drops must be alone, who reads need not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, file: int) -> Path:
        """A file by its number."""
        return self._folder / f"{file:06d}.bin"

    def sizes(self) -> dict[int, int]:
        """Bytes of each file."""
        with storing(self._folder):
            found = [(_FILE.fullmatch(path.name), path) for path in self._folder.iterdir()]
            return {int(match[1]): path.stat().st_size for match, path in found if match}

    def append(self, content: bytes, *, durable: bool = False) -> Place:
        """Add a content; what a killed writer left of one before it does no harm.

        Raises:
            StorageError: it cannot be written.
        """
        sizes = self.sizes()
        last = max(sizes, default=1)
        file = last + (sizes.get(last, 0) >= _FULL)
        path = self.path(file)
        with storing(path):
            with path.open("ab") as opened:
                start = opened.tell()
                opened.write(content)
            if durable:
                sync(path)
                sync(self._folder)
        return Place(file, start, len(content))

    def read(self, place: Place) -> bytes:
        """A content; fewer bytes than its place says where the file was cut.

        Raises:
            StorageError: it cannot be read.
        """
        path = self.path(place.file)
        with storing(path), path.open("rb") as opened:
            opened.seek(place.start)
            return opened.read(place.size)

    def sync(self) -> None:
        """Let all of them reach the disk."""
        with storing(self._folder):
            for file in self.sizes():
                sync(self.path(file))
            sync(self._folder)

    def full(self) -> dict[int, int]:
        """Bytes of each file to which nothing is added any more; the last number is never free."""
        sizes = self.sizes()
        return {file: size for file, size in sizes.items() if file < max(sizes)}

    def drop(self, files: Collection[int]) -> None:
        """Delete files."""
        for file in files:
            with storing(path := self.path(file)):
                path.unlink(missing_ok=True)


def damaged(path: Path) -> StorageError:
    """The error that says that a file is not what was written."""
    return StorageError(f"{str(path)!r} is damaged: restore it, or start anew")
