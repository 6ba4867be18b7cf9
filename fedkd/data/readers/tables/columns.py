"""Columns by name: which of them tell of one test, and which the student sees.

The columns that a test is encoded as bear its name: `thal=3` and `thal=7` say which value it has,
`thal?` that it is missing.
"""

import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from fedkd.errors import ConfigError
from fedkd.names import choices

MISSING = frozenset({"", "?", "na", "nan"})
"""What a cell without a value holds, in lower case."""
_TEST = re.compile(r"(.+?)(?:=.*|\?)")
_WHOLE = re.compile(r"([+-]?[0-9]{1,18})(\.0*)?")
OTHERS = "*"
"""The code of whatever has none."""


def indicator(test: str) -> str:
    """The name of the column that is 1 where `test` is missing."""
    return f"{test}?"


def code(test: str, value: str) -> str:
    """The name of the column that is 1 where `test` is `value`."""
    return f"{test}={value}"


def is_code(feature: str) -> bool:
    """Whether a feature is 1 where a column has a certain code, else 0."""
    return "=" in feature


def made_of(feature: str, columns: Collection[str]) -> str | None:
    """The column among `columns` that a feature is an indicator or a code of; None: of none."""
    return next((test for test in may_be_made_of(feature) if test in columns), None)


def may_be_made_of(feature: str) -> list[str]:
    """What columns a feature may be made of, by its name."""
    tests = (feature.removesuffix("?"), feature.partition("=")[0])
    return [test for test in tests if test != feature]


def as_code(cell: str) -> str:
    """A whole number without its sign, zeros in front and decimals; other text as it is."""
    match = _WHOLE.fullmatch(cell)
    return cell if match is None else str(int(match[1]))


def is_named(column: str, names: Collection[str]) -> bool:
    """Whether a column has one of the names, in which `*` is any text."""
    return column in names or any(fnmatchcase(column, name) for name in names)


def as_key(column: str) -> str:
    """A column as a key of a TOML file."""
    return column if column.replace("_", "").isalnum() and column.isascii() else f'"{column}"'


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
