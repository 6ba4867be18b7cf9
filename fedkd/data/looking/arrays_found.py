"""What arrays hold: of an .npz file, or of a folder of .npy files."""

from collections import Counter
from pathlib import Path

import numpy as np

from fedkd.data.looking.columns import SHOWN
from fedkd.data.looking.concerns import copies, of_classes
from fedkd.data.looking.described import ArrayFound, Concern
from fedkd.data.readers import arrays
from fedkd.data.readers.arrays import Array, FaultError, Stored
from fedkd.errors import DataError

_AT_ONCE = 64_000_000
"""How many bytes of an array are looked at together."""


def look(path: Path) -> tuple[tuple[ArrayFound, ...], list[Concern]]:
    """The arrays that fedkd knows by name, and what is odd about them.

    Raises:
        DataError: one is missing, or the file is damaged.
    """
    try:
        found = arrays.read(path)
    except FaultError as fault:
        raise DataError(f"{path}: {' '.join(str(fault).split())}") from fault
    told = tuple(_array(name, stored) for name, stored in found.items())
    return told, _concerns(found, told)


def _array(name: str, stored: Stored) -> ArrayFound:
    array = stored.array
    low = high = None
    if array.dtype.kind in "fiub" and array.size:
        low, high = _range(stored)
    single = array.ndim == 1 and array.dtype.kind in "iubU"
    counts = Counter(map(str, array.tolist())) if single else Counter[str]()
    return ArrayFound(
        name=name,
        shape=tuple(array.shape),
        dtype=str(array.dtype),
        low=low,
        high=high,
        distinct=len(counts),
        values=tuple(counts.most_common(SHOWN)),
    )


def _range(stored: Stored) -> tuple[float | None, float | None]:
    """The least and the largest number, a part of the file at a time; None without any."""
    array = stored.array
    rows = max(1, _AT_ONCE * len(array) // max(1, array.nbytes))
    ends: list[float] = []
    for start in range(0, len(array), rows):
        part = array[start : start + rows]
        if (known := part[np.isfinite(part)]).size:
            ends += [float(known.min()), float(known.max())]
        stored.release()
    return (min(ends), max(ends)) if ends else (None, None)


def _concerns(found: dict[str, Stored], told: tuple[ArrayFound, ...]) -> list[Concern]:
    concerns = [
        Concern(name, f"{bad} values are no number")
        for name, stored in found.items()
        if stored.array.dtype.kind == "f" and not stored.mapped
        if (bad := int((~np.isfinite(stored.array)).sum()))
    ]
    labels = next(array for array in told if array.name == "y_train")
    if len(labels.shape) == 1 and labels.whole and labels.distinct <= SHOWN:
        concerns += of_classes(labels.values)
    if found.keys() >= {"x_train", "x_test"} and not found["x_train"].mapped:
        train, test = (_records(found[key].array) for key in ("x_train", "x_test"))
        concerns += copies(train, "training records")
        if both := len(set(train) & set(test)):
            concerns.append(Concern("x_test", f"{both} records are in x_train too"))
    return concerns


def _records(array: Array) -> list[bytes]:
    return [record.tobytes() for record in array]
