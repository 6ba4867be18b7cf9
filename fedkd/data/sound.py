"""What is likely to be wrong with data that can be read: a word to its owner, no refusal."""

import logging
from collections.abc import Mapping, Sequence

import torch

from fedkd.data import scaling
from fedkd.data.readers.tables import files
from fedkd.data.readers.tables.columns import as_key
from fedkd.data.types import Dataset, Limits
from fedkd.rows import Rows, batches, one, shapes_of

log = logging.getLogger(__name__)

_LARGE = 10.0
"""The root mean square above which a column is hardly meant for a model as it is."""
_SHOWN = 5


def look_over(dataset: Dataset) -> None:
    """Warn of classes that are in one part only, and of columns that are not scaled."""
    if not dataset.tokenizers:  # of texts numbers say which, and not how much
        unscaled(dataset.name, dataset.train.x, dataset.features, dataset.scale)
    if dataset.targets == "classes":
        _unknown_classes(dataset)


def _unknown_classes(dataset: Dataset) -> None:
    csv = files.is_table(dataset.name)
    ways = (",", ", or name a test file by data.test") if csv else (" or", "")
    for samples, part, then in (
        (dataset.train, "training", "nothing can learn them"),
        (dataset.test, "testing", "no accuracy tells of them"),
    ):
        absent = torch.bincount(samples.y, minlength=dataset.classes) == 0
        if absent.any():
            some = [dataset.class_names[int(label)] for label in absent.nonzero().flatten()]
            log.warning(
                "%s: no sample for %s of %s: %s; give more of them%s drop them%s",
                *(dataset.name, part, _some(some), then, *ways),
            )


def unscaled(name: str, x: Rows, features: Sequence[str], scale: Mapping[str, Limits]) -> None:
    """Warn of columns with large values, which drown all others in a model."""
    shapes = shapes_of(x)
    columns = scaling.names(features, shapes) if isinstance(shapes, tuple) else ()
    sums = [one(batch).double().square().sum(dim=0) for batch in batches(x)] if columns else []
    sizes = (sum(sums, torch.zeros(len(columns))) / len(x)).sqrt().tolist()
    large = {
        column: size
        for column, size in zip(columns, sizes, strict=True)
        if size > _LARGE and column not in scale
    }
    if large:
        worst = max(large, key=lambda column: large[column])
        others = [column for column in large if column != worst]
        too = f" (large too: {_some(others)})" if others else ""
        log.warning(
            "%s: column %r has values of about %.0e%s, and models learn well from values of about "
            "1: let the experiment give limits, data.limits.%s = [low, high], or in a federation "
            "say data.scale = 'public'",
            *(name, worst, large[worst], too, as_key(worst)),
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
