"""What every run's folder has in common: made once, gone on with by the same experiment only."""

import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.machinery import all_suffixes
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from fedkd.config import ModelSpec
from fedkd.errors import ConfigError, RunFolderError, StorageError
from fedkd.files import append, make_folder, storing, write_atomically
from fedkd.locks import LOCK, hold
from fedkd.models import hub
from fedkd.names import imported, is_of_library, nearest
from fedkd.optional import ready_torchvision
from fedkd.runs.manifest import cannot_resume
from fedkd.runs.schema import Environment
from fedkd.version import __version__

M = TypeVar("M", bound=BaseModel)

log = logging.getLogger(__name__)

ENVIRONMENT = "environment.json"
_LAYOUT = 2
"""How run folders are laid out; from 2 on, what a run goes on from is named by its SHA-256."""


@contextmanager
def resumable(path: Path) -> Iterator[None]:
    """Tell whoever loses a run to the machine's disk that what it kept so far is not lost.

    Raises:
        StorageError: that of the block, with the folder to go on from if it is there.
    """
    try:
        yield
    except StorageError as error:
        if not path.is_dir():
            raise
        raise StorageError(
            f"{error}; then go on with --resume from what {str(path)!r} holds"
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep every other process out of a run folder until the block ends, or this process does.

    Raises:
        UsageError: another process runs in it.
        StorageError: nothing can be written there.
    """
    with storing(path):
        lock = hold(path, "another process")
    try:
        yield
    finally:
        lock.release()


def check_free(path: Path, known: Collection[str], *, resume: bool) -> None:
    """Refuse a folder that another run, or something else, has; and to resume what is not there.

    Args:
        path: the run folder.
        known: what a run puts there before its config.toml.
        resume: whether a run must be in it.

    Raises:
        RunFolderError: the folder exists and `resume` is off, or it does not, or it is no run's.
    """
    if resume:
        check_there(path)
    elif path.exists():
        raise RunFolderError(
            f"run folder {str(path)!r} exists: go on with --resume, or name another with --out"
        )
    if path.exists() and not (path / "config.toml").exists() and (name := _foreign(path, known)):
        raise RunFolderError(
            f"folder {str(path)!r} is no run folder, it holds {name!r} and no config.toml: "
            "name another with --out"
        )


def check_there(path: Path) -> None:
    """Refuse to resume in a folder that does not exist.

    Raises:
        RunFolderError: with the nearest name beside it.
    """
    if path.exists():
        return
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    near = nearest(path.name, sorted(each.name for each in beside if each.is_dir()))
    raise RunFolderError(
        f"run folder {str(path)!r} does not exist, so there is nothing to resume: {near}"
        "start it without --resume"
    )


def kept_config(path: Path, load: Callable[[Path], M]) -> M:
    """The configuration that a run folder holds, by what reads it.

    Raises:
        RunFolderError: it cannot be read.
    """
    try:
        return load(path / "config.toml")
    except ConfigError as error:
        raise cannot_resume(path, f"its config.toml does not hold ({error})") from error


def check_same(path: Path, asked: BaseModel, kept: BaseModel, *, free: set[str]) -> None:
    """Refuse to go on in a run folder that holds another experiment.

    Args:
        path: the run folder.
        asked: the experiment, complete.
        kept: the folder's own.
        free: top-level keys that may change, since no result depends on them.

    Raises:
        RunFolderError: it is another one.
    """
    if keys := differing(asked, kept, free=free):
        raise RunFolderError(
            f"run folder {str(path)!r} holds another experiment (it differs in {', '.join(keys)}): "
            "resume with its own config.toml, or name another with --out"
        )


def differing(asked: BaseModel, kept: BaseModel, *, free: set[str]) -> list[str]:
    """The top-level keys, but for `free`, in which two experiments differ."""
    ours, theirs = (e.model_dump(mode="json", exclude=free) for e in (asked, kept))
    return [key for key in ours if ours[key] != theirs.get(key)]


def read_json(path: Path, name: str) -> Any:
    """A JSON file of a run folder, which a resume needs.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    file = path / name
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise cannot_resume(path, f"its {name} is missing") from error
    except ValueError as error:
        raise cannot_resume(path, f"its {name} is damaged") from error
    except OSError as error:
        raise cannot_resume(path, f"its {name}: {error.strerror}") from error


def read_environment(path: Path) -> Environment:
    """Where a run that is to be resumed was begun.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    content = read_json(path, ENVIRONMENT)
    try:
        return Environment.model_validate(content)
    except ValidationError as error:
        raise cannot_resume(path, f"its {ENVIRONMENT} is damaged") from error


def warn_of_device(path: Path, devices: Sequence[torch.device]) -> None:
    """Say where a run that is resumed was begun on another kind of device than this one.

    Raises:
        RunFolderError: what the folder says of it is missing or damaged.
    """
    then, now = read_environment(path).device, _named(devices)
    kinds = ({name.partition(":")[0] for name in each.split(", ")} for each in (then, now))
    if len(set.union(*kinds)) > 1:
        log.warning(
            "run folder %s was begun on %s and goes on on %s: its results agree with those of "
            "one device to rounding, and no longer bit for bit",
            path, then, now,
        )  # fmt: skip


def begin(path: Path, inner: Path, devices: Sequence[torch.device]) -> None:
    """Make a run folder, a folder inside it, and `environment.json`.

    Raises:
        StorageError: it cannot be made.
    """
    make_folder(path)
    make_folder(inner)
    write_json(path / ENVIRONMENT, environment(devices))


def _named(devices: Sequence[torch.device]) -> str:
    return ", ".join(str(device) for device in devices)


def environment(devices: Sequence[torch.device]) -> dict[str, Any]:
    """Where and when a run is made, on which devices."""
    return {
        "fedkd": __version__,
        "layout": _LAYOUT,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "flwr": version("flwr"),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "device": _named(devices),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def append_json(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line of JSON to a file, and let it reach the disk."""
    append(path, json.dumps(record, allow_nan=False) + "\n")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON file for people to read too."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def _foreign(path: Path, known: Collection[str]) -> str | None:
    """Something in a folder that no run puts there before its config.toml."""
    if not path.is_dir():
        return path.name
    names = sorted(each.name for each in path.iterdir() if each.name != LOCK)
    return next((n for n in names if n not in known and not n.endswith(".tmp")), None)


def check_code(run: Path, models: Iterable[ModelSpec], *paths: str) -> None:
    """Refuse import paths of a run's folder, which may be anybody's, that may do anything.

    A call of Python's own, or of a library with texts as options, might start a program or read a
    pickle. What is the user's own code, or a class of models, is called as ever; code that lies in
    the folder itself is nobody knows whose.

    Args:
        run: the folder.
        models: those that it names.
        paths: what else it names that may be code, such as a task.

    Raises:
        RunFolderError: names the first.
    """
    models = [spec for spec in models if ":" in spec.name and not hub.family(spec.name)]
    for path in (*paths, *(spec.name for spec in models)):
        root = path.partition(":")[0].partition(".")[0]
        files = (run / f"{root}{suffix}" for suffix in all_suffixes())
        if ":" in path and ((run / root).is_dir() or any(map(Path.exists, files))):
            raise RunFolderError(
                f"run folder {str(run)!r} names {path!r} and holds {root!r}, which may be "
                "anybody's: put the module, if it is yours, elsewhere, and start there"
            )
    for spec in models:
        refused = spec.name.partition(":")[0].partition(".")[0] in sys.stdlib_module_names
        if not refused and '"' in json.dumps([*spec.options.values()]):
            try:
                ready_torchvision()
                found = imported(spec.name, what="model")
            except ConfigError:  # which is said where it is built, if it is
                continue
            model = isinstance(found, type) and issubclass(found, nn.Module)
            refused = is_of_library(found) and not model
        if refused:
            raise RunFolderError(
                f"run folder {str(run)!r} has the model {spec.name!r}, a call of a library that "
                "may do anything, and a run's folder may be anybody's: expected a class of "
                "torch.nn.Module, or code of your own"
            )
