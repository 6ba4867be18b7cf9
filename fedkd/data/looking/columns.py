"""Of what kind a column of cells is."""

import re
from collections import Counter
from collections.abc import Sequence

from fedkd.data.looking.described import Column, ColumnKind
from fedkd.data.readers.tables.cells import is_date, is_missing, number

SHOWN = 20
"""Values of a column that are told one by one."""
_MOSTLY = 0.9
"""The share of cells that may differ before a column counts as an identifier, or as texts."""
_FEW = 20
"""With fewer cells, a value for each is no sign of anything."""
_SENTENCE = 2.5
"""Words of a cell on average, from which on cells are texts."""
_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")
_NUMBERED = re.compile(
    r"(^|.*[_ .-])(id|uuid|guid|key|nr|no|number|index|mrn|ssn)$|^unnamed.*|^(patient|subject|"
    r"person|record|row|customer|case|study|name|surname|e-?mail|phone)(id)?$",
    re.IGNORECASE,
)


def described(name: str, cells: Sequence[str]) -> Column:
    """What the cells of a column hold.

    Args:
        name: its header.
        cells: as they stand there, stripped.
    """
    present = [cell for cell in cells if not is_missing(cell)]
    counts = Counter(present)
    commas = any(map(_COMMA.fullmatch, counts))
    numbers = [number(cell.replace(",", ".") if commas else cell) for cell in counts]
    known = [value for value in numbers if value is not None]
    numeric = bool(known) and len(known) == len(numbers)
    whole = numeric and all(value.is_integer() for value in known)
    kind = _kind(name, present, counts, known if numeric else None, whole=whole)
    told = kind in ("category", "constant") or (kind == "number" and len(counts) <= SHOWN)
    return Column(
        name=name,
        kind=kind,
        missing=len(cells) - len(present),
        distinct=len(counts),
        rarest=min(counts.values(), default=0),
        low=min(known) if numeric else None,
        high=max(known) if numeric else None,
        whole=whole,
        decimals=numeric and commas,
        values=tuple(counts.most_common(SHOWN)) if told else (),
    )


def is_numbered(name: str) -> bool:
    """Whether a header says that its column numbers or names records."""
    return _NUMBERED.fullmatch(name.strip()) is not None


def _kind(
    name: str,
    present: Sequence[str],
    counts: Counter[str],
    known: list[float] | None,
    *,
    whole: bool,
) -> ColumnKind:
    """Of one column: what its header says counts where its values leave room for it."""
    if len(counts) <= 1:
        return "constant" if counts else "empty"
    nearly_each = len(counts) >= _MOSTLY * len(present) and len(present) >= _FEW
    if known is not None:
        numbered = whole and (is_numbered(name) or _counts_up(known, len(present)))
        return "identifier" if nearly_each and numbered else "number"
    if all(map(is_date, counts)):
        return "date"
    if _are_texts(present, counts):
        return "text"
    return "identifier" if nearly_each else "category"


def _are_texts(present: Sequence[str], counts: Counter[str]) -> bool:
    """Whether cells are texts: of several words, and more of them than categories have."""
    words = sum(cell.count(" ") + 1 for cell in present) / len(present)
    return words >= _SENTENCE and (len(counts) > _FEW or 2 * len(counts) > len(present))


def _counts_up(known: Sequence[float], records: int) -> bool:
    """Whether whole numbers are those from one to another, each once."""
    return len(known) == records and max(known) - min(known) + 1 == records
