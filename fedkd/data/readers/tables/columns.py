"""Columns by name: which of them tell of one test, and which the student sees.

The columns that a test is encoded as bear its name: `thal=3` and `thal=7` say which value it has,
`thal?` that it is missing.
"""

import re
from collections.abc import Sequence

from fedkd.errors import ConfigError
from fedkd.names import choices

MISSING = frozenset({"", "?", "na", "nan"})
"""What a cell without a value holds, in lower case."""
_TEST = re.compile(r"(.+?)(?:=.*|\?)")


def indicator(test: str) -> str:
    """The name of the column that is 1 where `test` is missing."""
    return f"{test}?"


def test_of(column: str) -> str:
    """The test that a column tells of: `thal` of `thal=3`, of `thal?` and of `thal`."""
    match = _TEST.fullmatch(column)
    return column if match is None else match[1]


def without(
    features: Sequence[str], hidden: Sequence[str], *, key: str = "clients.privileged.columns"
) -> tuple[int, ...]:
    """Where the columns stand that tell nothing of what is hidden.

    Args:
        features: the names of all columns.
        hidden: names of tests, each with all of its columns, or of single columns.
        key: where the configuration says so.

    Raises:
        ConfigError: a name is none of both, the columns have no names, or none is left.
    """
    if not features:
        raise ConfigError(
            f"{key} needs columns with names, and the data has none: expected "
            "a .csv file or 'heart-disease'; images and .npz files cannot be seen in part"
        )
    tests = dict.fromkeys(test_of(column) for column in features)
    for name in hidden:
        if name not in tests and name not in features:
            raise ConfigError(
                f"{key} names {name!r}, which the data has not: "
                f"{choices(name, [*tests, *features], lead='it has ', listed=tests)}"
            )
    left = [n for n, c in enumerate(features) if c not in hidden and test_of(c) not in hidden]
    if not left:
        raise ConfigError(
            f"{key} names all columns, so that the student would see nothing: "
            "leave out those that it may see"
        )
    return tuple(left)
