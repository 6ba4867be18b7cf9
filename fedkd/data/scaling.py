"""Columns on one scale, by limits that are given or by the proxy set; never by private rows.

A column's limits `low` and `high` become -1 and 1. A cell without a value stays 0: it is 0 and
has a 1 in its indicator. A column of one's own that is called like one marks no other value.
Records that are no rows of columns have one mean and one standard deviation for all their values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from fedkd.data.readers.tables.columns import indicator, is_code
from fedkd.data.types import Dataset, Limits
from fedkd.data.views import limits_of
from fedkd.errors import ConfigError
from fedkd.names import choices
from fedkd.rows import Rows, Table, batches, converted, one, shape_of, shapes_of, whole

ALL = "*"
"""What all values of records that are no rows of columns are called in a scale."""


def names(features: Sequence[str], shape: tuple[int, ...]) -> tuple[str, ...]:
    """The columns' names; those of an .npz file are numbers from 0. Other shapes have none."""
    return tuple(features) or (tuple(map(str, range(shape[0]))) if len(shape) == 1 else ())


def scaled(dataset: Dataset, limits: Mapping[str, Limits], public: Rows | None) -> Dataset:
    """The data set with some or all of its columns on one scale.

    Args:
        dataset: as it was read.
        limits: of columns by name, `low` below `high`.
        public: unscaled inputs by which all other columns are scaled, so that their mean becomes 0
            and their standard deviation 1; None leaves those as they are.

    Returns:
        The data set, with all limits in `Dataset.scale`.

    Raises:
        ConfigError: samples are histories of items, limits are given and samples are no rows, a
            column is unknown, or limits are none.
    """
    if not limits and public is None:
        return dataset
    if dataset.targets == "items":
        raise ConfigError(
            f"data.{'limits' if limits else 'scale'} would change users' histories, in which 1 is "
            "an item taken and 0 another: leave it out"
        )
    if dataset.tokenizers:
        raise ConfigError(
            "data.scale = 'public' is for numbers, and [data.text] makes texts of the data: leave "
            "it out"
        )
    shape = shapes_of(dataset.train.x)
    columns = names(dataset.features, shape) if isinstance(shape, tuple) else ()
    if limits and not columns:
        raise ConfigError(
            f"data.limits is for rows of features, and a sample of {dataset.name!r} has shape "
            f"{shape}: leave it out, images are in [0, 1]"
        )
    for column, (low, high) in limits.items():
        if column not in columns:
            raise ConfigError(
                f"data.limits names {column!r}, which the data has not: "
                f"{choices(column, columns, lead='it has ')}"
            )
        least, most = torch.tensor([low, high]).tolist()  # as float32, which columns are
        if not least < most:
            raise ConfigError(
                f"data.limits.{column} is [{low:g}, {high:g}]: expected the lower limit first, and "
                "another one above it, as float32"
            )
    by_public = {} if public is None else _of_public(public, columns)
    scale = by_public | dict(limits)
    train, test = (
        replace(part, x=apply(part.x, dataset.features, scale))
        for part in (dataset.train, dataset.test)
    )
    return replace(dataset, train=train, test=test, scale=scale)


def apply(x: Rows, features: Sequence[str], scale: Mapping[str, Limits]) -> Rows:
    """Records on the scale of `Dataset.scale`; columns without limits as they are.

    Args:
        x: records.
        features: the names of their columns, where they are rows with such.
        scale: limits by name; of a table those of its column `zer` are `zer.0`, `zer.1`, ...

    Raises:
        ConfigError: limits are so close to each other that a value is no float32 on their scale; of
            a file, as it is read.
    """
    if not scale:
        return x
    if isinstance(x, Table):
        return Table({n: apply(each, (), limits_of(n, scale)) for n, each in x.columns.items()})
    columns = names(features, shape_of(x))
    return converted(x, partial(_applied, columns=columns, scale=scale))


def _applied(x: Tensor, columns: Sequence[str], scale: Mapping[str, Limits]) -> Tensor:
    if not columns:
        low, high = scale[ALL]
        return ((x.double() - (low + high) / 2) / ((high - low) / 2)).float()
    scaled = x.clone()
    for place, column in enumerate(columns):
        if column in scale:
            low, high = scale[column]
            value = (x[:, place].double() - (low + high) / 2) / ((high - low) / 2)
            scaled[:, place] = torch.where(_missing(x, columns, column), 0.0, value).float()
            if not scaled[:, place].isfinite().all():
                raise ConfigError(
                    f"data.limits.{column} is [{low:g}, {high:g}], on which scale a value of it is "
                    "no finite float32: expected limits further apart"
                )
    return scaled


def _of_public(rows: Rows, columns: Sequence[str]) -> dict[str, Limits]:
    """A standard deviation to each side of each column's mean; codes and indicators stay."""
    if isinstance(rows, Table):
        return {
            f"{view}.{name}": limits
            for view, each in rows.columns.items()
            if one(each[torch.arange(0)]).is_floating_point()  # integers are numbers to look up
            for name, limits in _of_public(each, names((), shape_of(each))).items()
        }
    if not columns:
        return {ALL: _around(*_moments(rows))}
    x = whole(rows)
    indicators = {indicator(column) for column in columns}
    limits = {}
    for place, column in enumerate(columns):
        values = x[:, place][~_missing(x, columns, column)].double()
        if column in indicators or is_code(column) or not len(values):
            continue
        mean, deviation = values.mean().item(), values.std(correction=0).item()
        limits[column] = _around(mean, deviation)
    return limits


def _around(mean: float, deviation: float) -> Limits:
    deviation = deviation or 1.0  # a column that is constant there says nothing of its scale
    return mean - deviation, mean + deviation


def _moments(rows: Rows) -> tuple[float, float]:
    """The mean and the standard deviation of all values."""
    # From near the mean, so that squares lose no digits.
    shift = one(rows[torch.tensor([0])]).double().mean()
    count, total, squares = 0, 0.0, 0.0
    for batch in batches(rows):
        values = one(batch).double() - shift
        count += values.numel()
        total += values.sum().item()
        squares += values.square().sum().item()
    mean = total / count
    return shift.item() + mean, max(squares / count - mean**2, 0.0) ** 0.5


def _missing(x: Tensor, columns: Sequence[str], column: str) -> Tensor:
    """Where a column has no value: bool (N,)."""
    if indicator(column) not in columns:
        return torch.zeros(len(x), dtype=torch.bool)
    return (x[:, columns.index(indicator(column))] == 1) & (x[:, columns.index(column)] == 0)
