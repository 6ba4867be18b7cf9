"""One process at a time in a folder."""

from pathlib import Path

from filelock import FileLock, Timeout

from fedkd.errors import UsageError

LOCK = ".lock"


def hold(folder: Path, what: str) -> FileLock:
    """Take a folder for this process alone, until it ends in whatever way.

    Raises:
        UsageError: another process has it.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UsageError(
            f"folder {str(folder)!r} is in use: {what} runs with it already; wait for it, "
            "stop it, or take another folder"
        ) from error
    return lock


def held(folder: Path) -> bool:
    """Whether a process that is alive holds a folder."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False
