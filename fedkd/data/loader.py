"""Data that a function of the user's own returns, by its import path.

It is trusted code of who runs the experiment. A site imports nothing that an experiment names: its
data is what its own file says (`federation.deploy.site`).
"""

import re

from fedkd import config
from fedkd.data import given
from fedkd.data.types import Dataset
from fedkd.errors import ConfigError, DataError, FedkdError
from fedkd.names import imported
from fedkd.tasks import Targets

_PATH = re.compile(r"[A-Za-z_][\w.]+:[A-Za-z_]\w*")  # one letter alone is a drive of Windows


def is_path(name: str) -> bool:
    """Whether a `data.name` is `"package.module:function"`."""
    return _PATH.fullmatch(name) is not None


def load(name: str, source: config.Source, *, seed: int, targets: Targets) -> Dataset:
    """What the function returns that a name leads to; it is called without arguments.

    Args:
        name: `"package.module:function"`; a class without arguments may do.
        source: the section `[data]`.
        seed: keys the hashes by which records are held out for testing where the function returns
            none.
        targets: what the task asks for.

    Raises:
        ConfigError: it cannot be imported, or cannot be called.
        DataError: it fails, or what it returns is nothing that `given.dataset` takes.
    """
    function = imported(name, what="data.name")
    if not callable(function):
        raise ConfigError(f"data.name is {name!r}, which cannot be called: expected a function")
    try:
        found = function()
    except FedkdError:
        raise
    except Exception as error:  # code of the user's own may raise anything
        raise DataError(f"data.name = {name!r} raised {type(error).__name__}: {error}") from error
    return given.dataset(found, name, source, seed=seed, targets=targets)
