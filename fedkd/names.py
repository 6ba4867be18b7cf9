"""Names that a user writes: the nearest valid one, and what an import path leads to."""

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

from fedkd.errors import ConfigError


def nearest(name: str, valid: Iterable[str], *, prefix: str = "") -> str:
    """`did you mean 'x'? ` if one of `valid` is close to `name`, else nothing."""
    # Case is the commonest slip and the one that difflib weighs most.
    by_lower = {candidate.lower(): candidate for candidate in valid}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    return f"did you mean {prefix + by_lower[near[0]]!r}? " if near else ""


def imported(path: str, *, what: str) -> Any:
    """What `"package.module:name"` leads to.

    Raises:
        ConfigError: the module or the name in it cannot be imported, whatever the reason.
    """
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise ConfigError(
            f"{what} {path!r} cannot be imported: {type(error).__name__}: {error}; "
            "expected 'package.module:name', of what is installed, on PYTHONPATH, or, on one's own "
            "machine, beside the experiment's file"
        ) from error
