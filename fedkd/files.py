"""Writing files so that a reader, or a run that was killed, never finds half of one."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Write beside `path`, then rename over it.

    What a killed writer left beside `path` is overwritten by the next one.

    Args:
        path: the file to make or replace.
        content: all of it; text is written as UTF-8.
        durable: flush to disk before the rename, against power loss; a killed process needs none.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
