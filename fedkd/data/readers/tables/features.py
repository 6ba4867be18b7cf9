"""Which features a table has: its columns of numbers, codes in place of others, and indicators.

What they are follows from the header, the configuration and the proxy set, never from private
rows: codes that these have would be a release of their own, and one row more could add a feature.
"""

from collections.abc import Sequence
from pathlib import Path

from fedkd import config
from fedkd.data.readers.tables import files, labels
from fedkd.data.readers.tables.cells import Cells, is_missing
from fedkd.data.readers.tables.columns import OTHERS, as_code, code, indicator, is_named
from fedkd.errors import ConfigError, DataError

_MOST = 100
"""More codes than that in the proxy set are names or identifiers, hardly what a model learns."""


def of(table: Cells, source: config.Source, *, taken: Sequence[str]) -> list[str]:
    """The features of a table, in the order of its columns.

    Args:
        table: of which the header counts.
        source: says what is left out, which codes columns have, and whether values may be missing.
        taken: columns that are something else, such as labels.

    Raises:
        DataError: a column is unknown, or a feature is called like another one.
        ConfigError: codes are to come from a proxy set that is no table of its own.
    """
    for name in source.ignore:
        if not any(is_named(column, (name,)) for column in table.header):
            table.require(name, "data.ignore")
    kept = [c for c in table.header if c not in taken and not is_named(c, source.ignore)]
    codes = _codes(source, kept)
    for column in codes:
        if column not in kept:
            table.require(column, "data.codes")
            raise DataError(
                f"{table.path}: data.codes names {column!r}, which is left out or no feature: "
                "leave it out there"
            )
    found: list[str] = []
    for column in kept:
        own = codes.get(column)
        found += [column] if own is None else [code(column, each) for each in own]
        if source.missing == "indicate":
            found.append(indicator(column))
    if twice := [name for name in found if found.count(name) > 1]:
        raise DataError(
            f"{table.path}: column {twice[0]!r} has the name of a column that data.missing = "
            "'indicate' or data.codes makes; rename it"
        )
    return found


def _codes(source: config.Source, columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The codes of columns that have some, by the column's name."""
    asked = source.codes
    if asked == "public":
        return _of_public(source, columns, None)
    given = {column: codes for column, codes in asked.items() if codes != "public"}
    public = [column for column, codes in asked.items() if codes == "public"]
    return given | (_of_public(source, columns, public) if public else {})


def _of_public(
    source: config.Source, columns: Sequence[str], wanted: Sequence[str] | None
) -> dict[str, tuple[str, ...]]:
    """The codes that columns have in the proxy set; of all that are no numbers there, if None."""
    public = source.public if isinstance(source, config.Data) else None
    if public is None or not files.is_table(public.source):
        raise ConfigError(
            "data.codes come from the proxy set, 'public', and data.public.source is "
            f"{None if public is None else public.source!r}: expected a table of its own, as "
            "rows of the data itself are held out only once they are read; name one, or give the "
            "codes"
        )
    table = files.read_all(
        Path(public.source).expanduser(),
        label=source.labels[0],
        wanted=lambda column: not is_named(column, source.ignore),
        decimal=source.decimal,
    )
    for column in columns if wanted is None else wanted:
        table.require(column, "data.codes")
    found = {}
    for column in columns if wanted is None else wanted:
        cells = [cell for cell in table.cells(column) if not is_missing(cell)]
        if wanted is None and all(table.number(cell) is not None for cell in cells):
            continue
        names = labels.encode([as_code(cell) for cell in cells])[1]
        if len(names) > _MOST:
            raise DataError(
                f"{table.path}: column {column!r} has {len(names)} different values, which looks "
                f"like names or texts; expected at most {_MOST} codes: leave it out, data.ignore = "
                f"[{column!r}], or give its codes"
            )
        found[column] = (*(name for name in names if name != OTHERS), OTHERS)
    return found
