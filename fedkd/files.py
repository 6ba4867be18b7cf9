"""Writing files so that a reader, or a run that was killed, never finds half of one."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from fedkd.errors import StorageError

_ROOM = "make room on its disk"
_RIGHTS = "see to its permissions, or name a place on a disk that can be written"
_DISK = "see to its disk"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
    errno.ENOENT: "it must be there, and the folders on the way to it",
    errno.ENOTDIR: "what is on the way to it must be a folder",
}


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """What the machine refuses while `path` is read or written, said in one line with a remedy.

    Raises:
        StorageError: in place of any `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{str(path)!r}: {error.strerror or error}; {_REMEDIES.get(error.errno or 0, _DISK)}"
        ) from error


def write_atomically(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Write beside `path`, then rename over it.

    What a killed writer left beside `path` is overwritten by the next one.

    Args:
        path: the file to make or replace.
        content: all of it; text is written as UTF-8.
        durable: flush the file before the rename and its folder after it, against power loss; a
            killed process needs neither.

    Raises:
        StorageError: it cannot be written; what was there before is left.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp")
    with storing(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
            if durable:
                sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def append(path: Path, text: str, *, durable: bool = True) -> None:
    """Add text to the end of a file, which is made if there is none.

    Args:
        path: the file.
        text: what is added, as UTF-8.
        durable: let it reach the disk, against power loss.

    Raises:
        StorageError: it cannot be written; a part of it may stand there.
    """
    with storing(path):
        new = not path.exists()
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if new and durable:
            sync(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder, with those above it, and let the names of all that were made reach the disk.

    Raises:
        StorageError: it cannot be made.
    """
    with storing(path):
        new = list(takewhile(lambda each: not each.is_dir(), (path, *path.parents)))
        path.mkdir(parents=True, exist_ok=True)
        for each in new:
            sync(each.parent)


def sync(path: Path) -> None:
    """Let a file's content, or the names in a folder, reach the disk; folders on POSIX only."""
    if os.name != "posix" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
