"""Writing files so that a reader, or a run that was killed, never finds half of one."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write beside `path`, flush to disk, then rename over it."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
