"""Where data comes from, and how it is split among clients."""

from pathlib import Path

import torch
from torch import Tensor

from fedkd import config, rng
from fedkd.data import named, npz, partition, table
from fedkd.data.named import NAMES, fetched, locations
from fedkd.data.types import Dataset, FederatedData, Samples
from fedkd.errors import ConfigError, DataError

__all__ = [
    "NAMES",
    "Dataset",
    "FederatedData",
    "Samples",
    "federate",
    "fetched",
    "load",
    "locations",
    "shared",
]


def load(data: config.Source, *, seed: int) -> Dataset:
    """The data set that `data.name` says: a known name, or the path of an .npz or .csv file.

    Args:
        data: the experiment's section `[data]`.
        seed: the experiment's seed; draws the test rows of a CSV file and of the hospitals.

    Raises:
        DataError: it is missing, corrupt or not in the expected form.
    """
    path = Path(data.name).expanduser()
    match path.suffix.lower():
        case ".npz":
            return npz.load(path)
        case ".csv":
            return table.load(
                path,
                label=data.label,
                client=data.client,
                indicate=data.missing == "indicate",
                test_share=data.test_share,
                seed=seed,
            )
        case _:
            return named.load(data.name, test_share=data.test_share, seed=seed)


def federate(data: config.Data, *, clients: int | None, seed: int) -> FederatedData:
    """Load the data, take the public set, and split the rest among the clients.

    Args:
        data: the experiment's section `[data]`.
        clients: how many; None for the natural split, which knows.
        seed: the experiment's seed; the same seed gives the same split.

    Raises:
        DataError: the data is missing, corrupt, or does not fit.
        ConfigError: it cannot be split as asked.
    """
    dataset = load(data, seed=seed)
    public, private = _public(data, dataset, seed)
    parts = partition.split(
        data.partition,
        labels=dataset.train.y[private],
        groups=None if dataset.groups is None else dataset.groups[private],
        clients=clients,
        generator=rng.stream(seed, purpose="partition"),
    )
    return _federated(dataset, public, tuple(dataset.train.subset(private[part]) for part in parts))


def shared(data: config.Data, *, seed: int) -> FederatedData:
    """What all parties hold: the public set and the test set, without any client's data.

    Raises:
        DataError: as `federate`.
        ConfigError: the public set is larger than its source.
    """
    dataset = load(data, seed=seed)
    return _federated(dataset, _public(data, dataset, seed)[0], ())


def _federated(
    dataset: Dataset, public: Tensor | None, clients: tuple[Samples, ...]
) -> FederatedData:
    return FederatedData(
        name=dataset.name,
        classes=dataset.classes,
        class_names=dataset.class_names,
        clients=clients,
        public=public,
        test=dataset.test,
        features=dataset.features,
    )


def _public(data: config.Data, dataset: Dataset, seed: int) -> tuple[Tensor | None, Tensor]:
    """The public inputs, and the indices of the training samples that stay private."""
    everything = torch.arange(len(dataset.train))
    if data.public is None:
        return None, everything
    held_out = data.public.source == "held-out"
    if held_out:
        source = dataset
    else:
        source = load(data.model_copy(update={"name": data.public.source}), seed=seed)
        if source.shape != dataset.shape:
            raise DataError(
                f"data.public.source = {data.public.source!r} has samples of shape {source.shape}; "
                f"expected {dataset.shape} as in {dataset.name!r}"
            )
        if source.features != dataset.features:
            raise DataError(
                f"data.public.source = {data.public.source!r} has the columns "
                f"{', '.join(source.features) or 'without names'}; expected those of "
                f"{dataset.name!r}, in their order: {', '.join(dataset.features) or 'no names'}"
            )
    most = len(source.train) - held_out  # at least one sample stays private
    if data.public.size > most:
        raise ConfigError(
            f"data.public.size is {data.public.size}; expected at most {most}, as {source.name!r} "
            f"has {len(source.train)} training samples"
        )
    order = torch.randperm(len(source.train), generator=rng.stream(seed, purpose="public"))
    chosen, rest = order[: data.public.size].sort().values, order[data.public.size :].sort().values
    if not held_out:
        return source.train.x[chosen], everything
    _nobody_vanished(dataset, data, rest)
    return source.train.x[chosen], rest


def _nobody_vanished(dataset: Dataset, data: config.Data, private: Tensor) -> None:
    """A natural client whose samples all went public would silently shift the others' indices."""
    if dataset.groups is None or not isinstance(data.partition, config.Natural):
        return
    gone = set(dataset.groups.tolist()) - set(dataset.groups[private].tolist())
    if gone:
        raise ConfigError(
            f"the held-out public set takes all training samples of natural client {min(gone)}; "
            "lower data.public.size or name another data set as data.public.source"
        )
