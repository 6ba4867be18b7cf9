"""What every run's folder has in common: made once, gone on with by the same experiment only."""

import json
import os
import platform
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

import fedkd
from fedkd.errors import ConfigError, RunFolderError
from fedkd.files import write_atomically


def check_free(path: Path, own: Collection[str], *, resume: bool) -> None:
    """Refuse a folder that another run, or something else, has.

    Args:
        path: the run folder.
        own: what a run puts there before its config.toml.
        resume: whether a run may be in it.

    Raises:
        RunFolderError: the folder exists and `resume` is off, or it is no run's.
    """
    if path.exists() and not resume:
        raise RunFolderError(
            f"run folder {str(path)!r} exists: go on with --resume, or name another with --out"
        )
    if path.exists() and not (path / "config.toml").exists() and (name := _foreign(path, own)):
        raise RunFolderError(
            f"folder {str(path)!r} is no run folder, it holds {name!r}: name another with --out"
        )


def check_same(
    path: Path, mine: BaseModel, load: Callable[[Path], BaseModel], *, free: set[str]
) -> None:
    """Refuse to go on in a run folder that holds another experiment.

    Args:
        path: the run folder.
        mine: the experiment, complete.
        load: reads the folder's own.
        free: top-level keys that may change, since no result depends on them.

    Raises:
        RunFolderError: it is another one, or cannot be read.
    """
    try:
        kept = load(path / "config.toml")
    except ConfigError as error:
        raise RunFolderError(f"run folder {str(path)!r} cannot be resumed: {error}") from error
    ours, theirs = (e.model_dump(mode="json", exclude=free) for e in (mine, kept))
    if differing := [key for key in ours if ours[key] != theirs.get(key)]:
        raise RunFolderError(
            f"run folder {str(path)!r} holds another experiment (it differs in "
            f"{', '.join(differing)}): "
            "resume with its own config.toml, or name another with --out"
        )


def begin(path: Path, inner: Path) -> None:
    """Make a run folder, a folder inside it, and `environment.json`.

    Raises:
        RunFolderError: it cannot be made.
    """
    try:
        inner.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"run folder {str(path)!r}: {error.strerror}") from error
    write_json(path / "environment.json", environment())


def environment() -> dict[str, Any]:
    """Where and when a run is made."""
    return {
        "fedkd": fedkd.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "flwr": version("flwr"),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line of JSON to a file, and let it reach the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON file for people to read too."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def _foreign(path: Path, own: Collection[str]) -> str | None:
    """Something in a folder that no run puts there before its config.toml."""
    if not path.is_dir():
        return path.name
    names = sorted(each.name for each in path.iterdir())
    return next((n for n in names if n not in own and not n.endswith(".tmp")), None)
