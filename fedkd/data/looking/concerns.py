"""What is odd about columns and records: a word to the owner, no refusal."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from fedkd.data.looking.described import Column, Concern
from fedkd.data.readers.tables.cells import is_missing, number

_ENOUGH = 30
"""Rows below which a column that tells the label is no sign of anything."""
_MANY, _RARE, _SAME = 50, 10, 0.9999
"""Words of a column; records of a class; a correlation with the label: from which on a word is
said."""
_KINDS = {
    "date": "dates: no feature as they stand; leave them out, or give the days between two of them",
    "identifier": "a value of its own in nearly every row: it tells who a row is, and a model "
    "would learn it by heart",
    "constant": "the same value in every row: it tells nothing",
    "empty": "no value in any row",
}


def of_columns(
    columns: Sequence[Column], cells: Mapping[str, Sequence[str]], labels: Sequence[str]
) -> list[Concern]:
    """What deserves a look in a table.

    Args:
        columns: as described.
        cells: of each column by name, N of them.
        labels: the columns of labels; none where texts alone are learned.
    """
    found = [
        Concern(each.name, _KINDS[each.kind])
        for each in columns
        if each.kind in _KINDS and each.name not in labels
    ]
    rows = max((len(own) for own in cells.values()), default=0)
    for each in columns:
        if each.kind == "category" and each.distinct > _MANY and each.name not in labels:
            found.append(
                Concern(each.name, f"{each.distinct} different words: many for categories")
            )
        if each.kind != "empty" and 2 * each.missing > rows:
            found.append(Concern(each.name, f"{each.missing} of {rows} cells have no value"))
    if len(labels) == 1:
        found += _of_label(next(each for each in columns if each.name == labels[0]), rows)
        told = [each for each in columns if each.name not in labels]
        found += [
            Concern(each.name, what)
            for each in told
            if (what := leak(each, cells[each.name], cells[labels[0]])) is not None
        ]
    kept = [cells[each.name] for each in columns if each.kind not in ("identifier", "empty")]
    return found + copies(list(zip(*kept, strict=True)), "rows, identifiers aside,")


def leak(column: Column, cells: Sequence[str], labels: Sequence[str]) -> str | None:
    """Why a column alone tells the label of every row, if it does; None: it does not.

    Words tell it if all rows with one word have one label; numbers if rows in their order have
    each label in one stretch, or, where labels are numbers with many values, if both are in one
    line. Rows without a value say nothing.
    """
    pairs = [
        (cell, label)
        for cell, label in zip(cells, labels, strict=True)
        if not is_missing(cell) and not is_missing(label)
    ]
    classes = {label for _, label in pairs}
    if len(pairs) < _ENOUGH or len(classes) < 2 or column.kind not in ("number", "category"):
        return None
    words = {cell for cell, _ in pairs}
    if 2 * len(words) <= len(pairs) and len(set(pairs)) == len(words) and column.distinct > 1:
        return "each of its values goes with one label alone: is it made from the label?"
    if column.kind != "number":
        return None
    points = [(_value(cell), label) for cell, label in pairs]
    if 2 * len(classes) > len(pairs) or len(classes) > _MANY:
        return _in_line([value for value, _ in points], [_value(label) for _, label in points])
    points.sort()
    changes = sum(one[1] != other[1] for one, other in pairwise(points))
    same = Counter(value for value, _ in set(points))
    if changes == len(classes) - 1 and max(same.values()) == 1:
        return "its order alone tells the label of every row: is it made from the label?"
    return None


def copies(records: Sequence[object], what: str) -> list[Concern]:
    """How many records stand there more than once.

    Args:
        records: hashable, N of them.
        what: what they are, in words.
    """
    more = len(records) - len(set(records))
    if not more:
        return []
    return [Concern("", f"{more} of {len(records)} {what} are copies of others")]


def of_classes(counts: Sequence[tuple[str, int]]) -> list[Concern]:
    """What is odd about how many records each class has."""
    few = [f"{name!r} ({count})" for name, count in counts if count < _RARE]
    if not few:
        return []
    more = f" and {len(few) - 5} more" if len(few) > 5 else ""
    return [Concern("", f"classes with fewer than {_RARE} records: {', '.join(few[:5])}{more}")]


def _of_label(label: Column, rows: int) -> list[Concern]:
    found = []
    if label.missing:
        found.append(Concern(label.name, f"{label.missing} of {rows} labels are missing"))
    if label.kind == "constant":
        found.append(Concern(label.name, "the label is the same in every row"))
    return found + (of_classes(label.values) if label.kind != "constant" else [])


def _value(cell: str) -> float:
    value = number(cell.replace(",", "."))
    return math.nan if value is None else value


def _in_line(xs: Sequence[float], ys: Sequence[float]) -> str | None:
    pairs = np.array([xs, ys])
    if not np.isfinite(pairs).all() or (np.ptp(pairs, axis=1) == 0).any():
        return None
    if abs(float(np.corrcoef(pairs)[0, 1])) < _SAME:
        return None
    return "it is the label on another scale: is it made from the label?"
