"""Arrays of natural clients, each of whom has a file of its own."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedkd import config
from fedkd.data import given
from fedkd.data.parties import called
from fedkd.data.readers import arrays
from fedkd.data.readers.arrays import GROUPS, FaultError, Stored
from fedkd.data.types import Dataset
from fedkd.errors import DataError
from fedkd.tasks import Targets


def load(paths: Sequence[Path], source: config.Source, *, seed: int, targets: Targets) -> Dataset:
    """Read the `x_train` and `y_train` of each file as those of a client, all of it in memory.

    Args:
        paths: `.npz` files or folders of `.npy` files; what else they hold is left out.
        source: the section `[data]`; its `test_share` of all records is held out, each by a hash.
        seed: keys the hashes.
        targets: what they are.

    Raises:
        DataError: names the file that is missing, damaged or unlike the others.
    """
    read = [_read(path) for path in paths]
    first = read[0]
    for path, found in zip(paths, read, strict=True):
        for key in first:
            own = found[key].array if key in found else None
            if own is None or own.shape[1:] != first[key].array.shape[1:]:
                raise DataError(
                    f"{path}: has {'no' if own is None else 'another shape of'} {key}; expected "
                    f"{first[key].array.shape[1:]} a record, as {paths[0]}"
                )
    together = {key: np.concatenate([each[key].array for each in read]) for key in first}
    counts = [len(each["y_train"].array) for each in read]
    together[GROUPS] = np.repeat(np.arange(len(paths)), counts)
    return given.dataset(together, called(paths), source, seed=seed, targets=targets)


def _read(path: Path) -> dict[str, Stored]:
    try:
        found = arrays.read(path, ("x_train", "y_train"))
    except FaultError as fault:
        raise DataError(f"{path}: {' '.join(str(fault).split())}") from fault
    return {key: each for key, each in found.items() if key != GROUPS}
