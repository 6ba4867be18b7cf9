"""Columns on one scale, by limits that are given or by the proxy set; never by private rows.

A column's limits `low` and `high` become -1 and 1. A cell without a value stays 0: it is 0 and
has a 1 in its indicator. A column of one's own that is called like one marks no other value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedkd.data.columns import indicator
from fedkd.data.types import Dataset, Limits, Samples
from fedkd.errors import ConfigError
from fedkd.names import choices


def names(features: Sequence[str], shape: tuple[int, ...]) -> tuple[str, ...]:
    """The columns' names; those of an .npz file are numbers from 0. Images have none."""
    return tuple(features) or (tuple(map(str, range(shape[0]))) if len(shape) == 1 else ())


def scaled(dataset: Dataset, limits: Mapping[str, Limits], public: Tensor | None) -> Dataset:
    """The data set with some or all of its columns on one scale.

    Args:
        dataset: as it was read.
        limits: of columns by name, `low` below `high`.
        public: unscaled inputs (M, F) by which all other columns are scaled, so that their mean
            becomes 0 and their standard deviation 1; None leaves those as they are.

    Returns:
        The data set, with all limits in `Dataset.scale`.

    Raises:
        ConfigError: samples are no rows, a column is unknown, or limits are none.
    """
    if not limits and public is None:
        return dataset
    columns = names(dataset.features, dataset.shape)
    if not columns:
        raise ConfigError(
            f"data.limits and data.scale are for rows of features, and a sample of "
            f"{dataset.name!r} has shape {dataset.shape}: leave them out, images are in [0, 1]"
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
        Samples(apply(part.x, columns, scale), part.y) for part in (dataset.train, dataset.test)
    )
    return replace(dataset, train=train, test=test, scale=scale)


def apply(x: Tensor, columns: Sequence[str], scale: Mapping[str, Limits]) -> Tensor:
    """Rows (N, F) on the scale of `Dataset.scale`; columns without limits as they are.

    Raises:
        ConfigError: limits are so close to each other that a value is no float32 on their scale.
    """
    if not scale:
        return x
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


def _of_public(x: Tensor, columns: Sequence[str]) -> dict[str, Limits]:
    """A standard deviation to each side of each column's mean; indicators stay what they are."""
    indicators = {indicator(column) for column in columns}
    limits = {}
    for place, column in enumerate(columns):
        values = x[:, place][~_missing(x, columns, column)].double()
        if column in indicators or not len(values):
            continue
        mean, deviation = values.mean().item(), values.std(correction=0).item()
        deviation = deviation or 1.0  # a column that is constant there says nothing of its scale
        limits[column] = (mean - deviation, mean + deviation)
    return limits


def _missing(x: Tensor, columns: Sequence[str], column: str) -> Tensor:
    """Where a column has no value: bool (N,)."""
    if indicator(column) not in columns:
        return torch.zeros(len(x), dtype=torch.bool)
    return (x[:, columns.index(indicator(column))] == 1) & (x[:, columns.index(column)] == 0)
