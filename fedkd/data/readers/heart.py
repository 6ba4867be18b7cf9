"""UCI's heart disease data: patients of four hospitals, thirteen tests, some of them missing.

Janosi, Steinbrunn, Pfisterer & Detrano 1988, UCI data set 45, CC BY 4.0. The files lie as UCI wrote
them, `processed.HOSPITAL.data`: no header, commas, `?` where a test was not made.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedkd.data.holdout import held_out
from fedkd.data.readers.tables.columns import MISSING, indicator
from fedkd.data.types import Dataset, Samples
from fedkd.errors import DataError
from fedkd.rows import concat

NAME, FOLDER = "heart-disease", "heart_disease"
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
"""The natural clients, in their order."""
FILES = tuple(f"processed.{hospital}.data" for hospital in HOSPITALS)
PAGE = "archive.ics.uci.edu/dataset/45/heart+disease"
CLASS_NAMES = ("healthy", "ill")


@dataclass(frozen=True)
class _Measured:
    """A number, scaled so that `low` to `high` becomes -1 to 1."""

    low: float
    high: float
    may_miss: bool = True
    zero_is_missing: bool = False


@dataclass(frozen=True)
class _Coded:
    """A kind, by its published code: a column for each."""

    codes: tuple[int, ...]
    may_miss: bool = True


# Fixed limits from clinical practice, never statistics of private data: pressure from hypotension
# to a hypertensive crisis (mm Hg), cholesterol (mg/dl), heart rate from rest to a young adult's
# maximum, ST depression up to 4 mm (an exercise ECG is positive from 1), vessels 0 to 3. No living
# patient has a pressure or a cholesterol of 0: it was not measured.
_TESTS: dict[str, _Measured | _Coded] = {
    "age": _Measured(30, 80, may_miss=False),
    "sex": _Measured(-1, 1, may_miss=False),
    "cp": _Coded((1, 2, 3, 4), may_miss=False),
    "trestbps": _Measured(90, 180, zero_is_missing=True),
    "chol": _Measured(100, 300, zero_is_missing=True),
    "fbs": _Measured(-1, 1),
    "restecg": _Coded((0, 1, 2)),
    "thalach": _Measured(70, 200),
    "exang": _Measured(-1, 1),
    "oldpeak": _Measured(0, 4),
    "slope": _Coded((1, 2, 3)),
    "ca": _Measured(0, 3),
    "thal": _Coded((3, 6, 7)),
}
TESTS = tuple(_TESTS)


def _columns(test: str) -> list[str]:
    kind = _TESTS[test]
    values = [test] if isinstance(kind, _Measured) else [f"{test}={code}" for code in kind.codes]
    return [*values, indicator(test)] if kind.may_miss else values


FEATURES = tuple(column for test in TESTS for column in _columns(test))
"""The columns that the tests are encoded as; see `fedkd.data.readers.tables.columns`."""


def load(folder: Path, *, test_share: float, seed: int) -> Dataset:
    """The four hospitals' patients, each held out or not by a hash of itself (`holdout`).

    Args:
        folder: where `FILES` lie.
        test_share: the share of patients held out, in expectation, in (0, 1).
        seed: the experiment's seed.

    Returns:
        Rows (N, 32) as `read` gives them; a hospital is a natural client, in `HOSPITALS`' order.

    Raises:
        DataError: a file is missing or not as UCI wrote it, or nobody is left of a hospital.
    """
    hospitals = [read(folder / file) for file in FILES]
    everything = Samples(concat([h.x for h in hospitals]), torch.cat([h.y for h in hospitals]))
    groups = torch.cat([torch.full((len(h),), number) for number, h in enumerate(hospitals)])
    whose = [
        f"{HOSPITALS[group]} {CLASS_NAMES[label]}"
        for group, label in zip(groups.tolist(), everything.y.tolist(), strict=True)
    ]
    held = held_out(everything.x, whose, test_share, seed=seed, purpose="heart-test-split")
    if gone := set(range(len(HOSPITALS))) - set(groups[~held].tolist()):
        raise DataError(
            f"data.test_share = {test_share} leaves no patient of {HOSPITALS[min(gone)]!r} for "
            "training; lower it"
        )
    if not held.any():
        raise DataError(
            f"data.test_share = {test_share} leaves no patient of {NAME!r} for testing; raise it"
        )
    return Dataset(
        name=NAME,
        train=everything.subset(torch.nonzero(~held)[:, 0]),
        test=everything.subset(torch.nonzero(held)[:, 0]),
        classes=2,
        class_names=CLASS_NAMES,
        groups=groups[~held],
        features=FEATURES,
    )


def read(path: Path) -> Samples:
    """One hospital's patients: x (N, 32) in the order of `FEATURES`, y 1 for the ill.

    A number is scaled by fixed limits, a code is one-hot; a test that is missing has 0 in these
    and 1 in its column `TEST?`.

    Raises:
        DataError: names the file and the line that is not as UCI wrote it.
    """
    try:
        with path.open(encoding="ascii", newline="") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}; expected the file as UCI wrote it") from error
    if not lines:
        raise DataError(f"{path}: is empty; expected the file as UCI wrote it")
    rows, labels = [], []
    for number, cells in enumerate(lines, start=1):
        try:
            rows.append(_patient(cells))
            labels.append(_label(cells[-1]))
        except ValueError as error:
            raise DataError(f"{path}: patient {number}: {error}") from error
    return Samples(torch.tensor(rows), torch.tensor(labels))


def _patient(cells: list[str]) -> list[float]:
    if len(cells) != len(TESTS) + 1:
        raise ValueError(f"{len(cells)} values; expected {len(TESTS)} tests and the diagnosis")
    return encoded(dict(zip(TESTS, cells, strict=False)))


def _encode(test: str, cell: str) -> list[float]:
    """The values of `_columns(test)`."""
    kind = _TESTS[test]
    value = None if cell.lower() in MISSING else float(cell)
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{test} is {cell!r}; expected a finite number or '?'")
    if isinstance(kind, _Measured):
        value = None if kind.zero_is_missing and value == 0 else value
        middle, half = (kind.low + kind.high) / 2, (kind.high - kind.low) / 2
        values = [0.0 if value is None else (value - middle) / half]
    else:
        if value is not None and value not in kind.codes:
            raise ValueError(f"{test} is {cell!r}; expected one of {kind.codes}")
        values = [float(value == code) for code in kind.codes]
    if value is None and not kind.may_miss:
        raise ValueError(f"{test} is missing, which every patient has")
    return [*values, float(value is None)] if kind.may_miss else values


def encoded(tests: Mapping[str, str]) -> list[float]:
    """A patient's values in the order of `FEATURES`, by the tests' names; what is not there misses.

    Raises:
        ValueError: a value is none of the test's, or one is missing that every patient has.
    """
    return [value for test in TESTS for value in _encode(test, tests.get(test, ""))]


def _label(cell: str) -> int:
    value = float(cell)
    if value not in range(5):
        raise ValueError(f"the diagnosis is {cell!r}; expected 0 to 4, ill from 1")
    return int(value > 0)


def missing(x: Tensor, test: str) -> Tensor:
    """Who lacks a test: rows (N, 32) -> bool (N,)."""
    column = indicator(test)
    if column not in FEATURES:
        return torch.zeros(len(x), dtype=torch.bool)
    return x[:, FEATURES.index(column)] == 1
