"""What is likely to be wrong with data that can be read: a word to its owner, no refusal."""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedkd.data import scaling
from fedkd.data.types import Dataset, Limits
from fedkd.errors import FedkdWarning

_LARGE = 10.0
"""The root mean square above which a column is hardly meant for a model as it is."""
_SHOWN = 5


def look_over(dataset: Dataset) -> None:
    """Warn of classes that are in one part only, and of columns that are not scaled."""
    for samples, part, then in (
        (dataset.train, "training", "nothing can learn them"),
        (dataset.test, "testing", "no accuracy tells of them"),
    ):
        absent = torch.bincount(samples.y, minlength=dataset.classes) == 0
        if absent.any():
            some = [dataset.class_names[int(label)] for label in absent.nonzero().flatten()]
            _warn(
                f"{dataset.name}: no sample for {part} of {_some(some)}: {then}; give more of "
                "them, drop them, or name a test file by data.test"
            )
    unscaled(dataset.name, dataset.train.x, dataset.features, dataset.scale)


def unscaled(name: str, x: Tensor, features: Sequence[str], scale: Mapping[str, Limits]) -> None:
    """Warn of columns with large values, which drown all others in a model."""
    columns = scaling.names(features, tuple(x.shape[1:]))
    sizes = x.double().square().mean(dim=0).sqrt().flatten().tolist() if columns else []
    large = {
        column: size
        for column, size in zip(columns, sizes, strict=True)
        if size > _LARGE and column not in scale
    }
    if large:
        worst = max(large, key=lambda column: large[column])
        others = [column for column in large if column != worst]
        too = f" (large too: {_some(others)})" if others else ""
        _warn(
            f"{name}: column {worst!r} has values of about {large[worst]:.0e}{too}, and models "
            f"learn well from values of about 1: let the experiment give limits, data.limits."
            f"{_key(worst)} = [low, high], or in a federation say data.scale = 'public'"
        )


def _warn(text: str) -> None:
    warnings.warn(text, FedkdWarning, stacklevel=3)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more


def _key(column: str) -> str:
    """A column as a key of a TOML file."""
    return column if column.replace("_", "").isalnum() and column.isascii() else f'"{column}"'
