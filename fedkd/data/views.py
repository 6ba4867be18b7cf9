"""Who sees what of a record: some of its named views, or some of its columns.

A record's views are the columns of a table, such as `pix` and `zer` of `x_train.pix` and
`x_train.zer`, or groups of the columns of rows of features, by `[data.views]`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from fedkd.config import Experiment
from fedkd.data.readers.tables import columns
from fedkd.errors import ConfigError
from fedkd.names import choices
from fedkd.rows import Rows, Table, columns_of, shapes_of

Groups = Mapping[str, Sequence[str]]
"""By a view's name patterns of columns' names, such as `{"pix": ["pix*"]}`."""
_T = TypeVar("_T")
Limits = tuple[float, float]
"""What becomes -1 and what becomes 1 of a column (`scaling`)."""


@dataclass(frozen=True)
class Sight:
    """What somebody sees of each record.

    Attributes:
        parts: at least one, by name: None, the column of that name of a table; or the places of
            columns of rows of features.
    """

    parts: Mapping[str, tuple[int, ...] | None]

    @classmethod
    def of_columns(cls, places: Sequence[int]) -> "Sight":
        """Of rows of features, the columns at `places`."""
        return cls({"": tuple(places)})

    def of(self, x: Rows) -> Rows:
        """What is seen of records: of one part its own tensor, of several a table by their names.

        Raises:
            KeyError: records are a table without such a column.
        """
        seen = {name: _part(x, name, places) for name, places in self.parts.items()}
        return next(iter(seen.values())) if len(seen) == 1 else Table(seen)

    def features(self, names: Sequence[str]) -> tuple[str, ...]:
        """The names of the columns that are seen, of all columns' names; none of a table."""
        places = next(iter(self.parts.values()))
        if len(self.parts) > 1 or places is None:
            return ()
        return tuple(names[place] for place in places)

    def scale(self, limits: Mapping[str, Limits]) -> dict[str, Limits]:
        """The limits of columns, by the names that columns have to who sees them."""
        alone = [name for name, places in self.parts.items() if places is None]
        if len(self.parts) > 1 or not alone:
            return dict(limits)
        return limits_of(alone[0], limits)

    def among(self, views: Mapping[str, _T]) -> dict[str, _T]:
        """Of something for each view, such as tokenisers, that of the views that are seen."""
        seen = {name: views[name] for name in self.parts if name in views}
        return {"": next(iter(seen.values()))} if len(self.parts) == 1 and seen else seen


def limits_of(view: str, limits: Mapping[str, Limits]) -> dict[str, Limits]:
    """The limits of a table's column, where `zer.0` is the first feature of the column `zer`."""
    mark = f"{view}."
    return {name.removeprefix(mark): each for name, each in limits.items() if name.startswith(mark)}


def _part(x: Rows, name: str, places: tuple[int, ...] | None) -> Rows:
    if places is not None:
        return columns_of(x, places)
    if not isinstance(x, Table):
        raise KeyError(name)
    return x.columns[name]


def sight(
    names: Sequence[str], x: Rows, features: Sequence[str], groups: Groups, *, key: str
) -> Sight | None:
    """What is seen by who sees the views of these names; None where there are no names: all.

    Args:
        names: of views.
        x: records.
        features: the names of their columns, where they are rows of features.
        groups: `[data.views]`.
        key: where the configuration names the views.

    Raises:
        ConfigError: records have no views, none of such a name, or a group that takes no column.
    """
    if not names:
        return None
    shapes = shapes_of(x)
    if isinstance(shapes, dict):
        if groups:
            raise ConfigError(
                f"[data.views] groups columns by their names, and the data has views of its own, "
                f"{', '.join(shapes)}: leave it out"
            )
        known: dict[str, tuple[int, ...] | None] = dict.fromkeys(shapes)
    else:
        known = {name: _places(name, groups[name], features) for name in groups}
    if not known:
        raise ConfigError(
            f"{key} names views, and records of the data are one tensor of shape {shapes}: store "
            "arrays x_train.NAME and x_test.NAME for each view, or for a .csv file say which "
            "columns make a view by [data.views]"
        )
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{key} names view {name!r}, which no client has: "
                f"{choices(name, known, lead='the data has ')}"
            )
    return Sight({name: known[name] for name in names})


def students(experiment: Experiment, x: Rows, features: Sequence[str]) -> Sight | None:
    """What a federation's student sees: its views, or all but the privileged columns; None: all.

    Raises:
        ConfigError: see `sight` and `columns.without`.
    """
    if (hidden := experiment.clients.privileged) is not None:
        return Sight.of_columns(columns.without(features, hidden.columns))
    named = experiment.student.views
    return sight(named, x, features, experiment.data.views, key="student.views")


def _places(view: str, patterns: Sequence[str], features: Sequence[str]) -> tuple[int, ...]:
    """Where the columns of a view stand."""
    if not features:
        raise ConfigError(
            f"data.views.{view} needs columns with names, and the data has none: expected a .csv "
            "file or 'heart-disease'"
        )
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in features):
            raise ConfigError(
                f"data.views.{view} has {pattern!r}, which no column is called: "
                f"{choices(pattern, features, lead='the data has ')}"
            )
    return tuple(
        place
        for place, name in enumerate(features)
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    )
