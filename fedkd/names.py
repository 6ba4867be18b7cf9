"""Names that a user writes: what to say of an unknown one, and where an import path leads."""

import difflib
import importlib
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedkd.errors import ConfigError

_BESIDE = "FEDKD_BESIDE"
"""Of the environment, since Ray's workers are processes of their own: see `look_beside`."""


def nearest(name: str, valid: Iterable[str], *, prefix: str = "") -> str:
    """`did you mean 'x'? ` if one of `valid` is close to `name`, else nothing."""
    # Case is the commonest slip and the one that difflib weighs most.
    by_lower = {candidate.lower(): candidate for candidate in valid}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    return f"did you mean {prefix + by_lower[near[0]]!r}? " if near else ""


def choices(
    name: str,
    valid: Collection[str],
    *,
    lead: str = "valid here: ",
    listed: Collection[str] | None = None,
    prefix: str = "",
) -> str:
    """What to write in place of `name`: the nearest of `valid` if one is close, and all of them.

    Args:
        name: as it was written.
        valid: names that it may be taken for.
        lead: what goes before the list.
        listed: what the list has, if that is not `valid`.
        prefix: goes before the nearest.
    """
    names = ", ".join(valid if listed is None else listed) or "none"
    return f"{nearest(name, valid, prefix=prefix)}{lead}{names}"


def unknown(what: str, name: str | None, valid: Collection[str], *, also: str = "") -> str:
    """The complaint about a `name` that is none of `valid`; `also` says what else it may be."""
    return f"unknown {what} {name!r}: {choices(name or '', valid)}{also}"


def look_beside(folder: Path) -> None:
    """Let import paths lead to modules in a folder too, here and in processes that this one starts.

    What is found without it comes first, and the folder is looked at for nothing else: what
    libraries import of their own accord never comes from beside an experiment.
    """
    os.environ[_BESIDE] = str(folder.resolve())


def imported(path: str, *, what: str) -> Any:
    """What `"package.module:name"` leads to.

    Raises:
        ConfigError: the module or the name in it cannot be imported, whatever the reason.
    """
    module, _, attribute = path.partition(":")
    try:
        with _findable(module):
            return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise ConfigError(
            f"{what} {path!r} cannot be imported: {type(error).__name__}: {error}; "
            "expected 'package.module:name', of what is installed, on PYTHONPATH, or, on one's own "
            "machine, beside the experiment's file"
        ) from error


@contextmanager
def _findable(module: str) -> Iterator[None]:
    """With the folder of `look_beside` on the path, if that alone can have the module."""
    folder, package = os.environ.get(_BESIDE), module.partition(".")[0]
    if not folder or folder in sys.path or package in sys.modules or _is_installed(package):
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def is_of_library(found: object) -> bool:
    """Whether a class or a function is Python's, a library's or fedkd's, and not a user's own."""
    module = getattr(found, "__module__", None) or ""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or module.partition(".")[0] == "fedkd":
        return module != "__main__"
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    places = [*map(sysconfig.get_path, kinds), site.getusersitepackages()]
    return any(Path(file).resolve().is_relative_to(Path(place).resolve()) for place in places)


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None  # without origin: a mere folder
