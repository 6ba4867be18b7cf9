"""The files of natural clients, where each has one of its own: `data.clients`."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from fedkd.errors import DataError


def files(clients: Sequence[str]) -> list[Path]:
    """One file or folder for each client, in the order in which they are named.

    Args:
        clients: paths; in a file's or folder's name `*` is any text, and what it stands for is in
            the order of names.

    Raises:
        DataError: nothing is there, or one is named twice.
    """
    found: list[Path] = []
    for name in clients:
        path = Path(name).expanduser()
        matches = [path] if path.exists() else sorted(map(Path, glob.glob(str(path))))  # noqa: PTH207
        if not matches:
            raise DataError(f"data.clients names {name!r}, and nothing is there")
        for match in matches:
            if match in found:
                raise DataError(f"data.clients names {str(match)!r} twice: expected each once")
            found.append(match)
    if len(found) < 2:
        raise DataError(
            f"data.clients leads to {len(found)} file, {str(found[0])!r}: expected one for each of "
            "two or more clients; a single file is data.name"
        )
    return found


def called(paths: Sequence[Path]) -> str:
    """What data of several files is called."""
    folder = os.path.commonpath([path.resolve().parent for path in paths])
    return f"{len(paths)} of {Path(folder).name}"
