"""Where data comes from, and how it is split among clients."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedkd import config, rng
from fedkd.data import given, loader, partition, scaling, sound, stream
from fedkd.data.holdout import hashes
from fedkd.data.readers.named import NAMES, fetched, locations
from fedkd.data.readers.pictures import folder
from fedkd.data.readers.tables import files, table
from fedkd.data.source import read
from fedkd.data.texts import reader as texts
from fedkd.data.types import Dataset, FederatedData, Samples
from fedkd.errors import ConfigError, DataError
from fedkd.rows import Rows, shapes_of, take
from fedkd.tasks import Targets, TaskKind
from fedkd.tasks.classification import KIND as CLASSIFICATION

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


def load(data: config.Source, *, seed: int, targets: Targets = "classes") -> Dataset:
    """The data set that `data.name` says: a known name, or the path of a file or a folder.

    Args:
        data: the experiment's section `[data]`.
        seed: the experiment's seed; keys the hashes that hold rows of a CSV file and patients of
            the hospitals out.
        targets: what the data's targets must be; known names have classes.

    Returns:
        The data set, scaled as the section says.

    Raises:
        DataError: it is missing, corrupt or not in the expected form.
        ConfigError: it cannot be scaled as asked.
    """
    return _ready(data, seed, targets)[0]


def federate(
    data: config.Data,
    *,
    clients: int | None,
    seed: int,
    task: TaskKind = CLASSIFICATION,
    scaled: bool = True,
) -> FederatedData:
    """Load the data, take the public set, and split the rest among the clients.

    It warns of what is likely to be wrong with the data (`sound`).

    Args:
        data: the experiment's section `[data]`.
        clients: how many; None for the natural split, which knows.
        seed: the experiment's seed; the same seed gives the same split.
        task: says what targets are, and by which groups of them a partition may deal.
        scaled: whether inputs are scaled by `data.limits` and the proxy set.

    Raises:
        DataError: the data is missing, corrupt, or does not fit.
        ConfigError: it cannot be split as asked.
    """
    dataset, public, private = _ready(data, seed, task.targets, scaled=scaled)
    sound.look_over(dataset)
    generator = rng.stream(seed, purpose="partition")

    def dealt(rows: Tensor) -> list[Tensor]:
        parts = partition.split(
            data.partition,
            count=len(rows),
            strata=None if task.strata is None else task.strata(dataset.train.y[rows]),
            groups=None if dataset.groups is None else dataset.groups[rows],
            clients=clients,
            generator=generator,
        )
        return [rows[part] for part in parts]

    stages = _stages_to_deal(dataset, data, private)
    # Each stage is dealt by itself, or a client might come away from one with nothing.
    dealings = zip(*(dealt(rows) for rows in stages), strict=True)
    parts = (torch.cat(pieces).sort().values for pieces in dealings)
    return _federated(dataset, public, tuple(dataset.train.subset(part) for part in parts))


def _stages_to_deal(dataset: Dataset, data: config.Data, private: Tensor) -> list[Tensor]:
    """The rows that are dealt together: those of a stage; all, where clients are natural.

    Raises:
        ConfigError: the held-out public set takes all training samples of a stage.
    """
    stage = dataset.train.stage
    if stage is None or data.stream is None or isinstance(data.partition, config.Natural):
        return [private]
    rows = [private[stage[private] == each] for each in range(data.stream.count)]
    if gone := [number for number, each in enumerate(rows, 1) if not len(each)]:
        raise ConfigError(
            f"the held-out public set takes all training samples of stage {gone[0]}: lower "
            "data.public.size or name another data set as data.public.source"
        )
    return rows


def shared(data: config.Data, *, seed: int, targets: Targets = "classes") -> FederatedData:
    """What all parties hold: the public set and the test set, without any client's data.

    It warns as `federate`.

    Raises:
        DataError: as `federate`.
        ConfigError: the public set is larger than its source.
    """
    dataset, public, _ = _ready(data, seed, targets)
    sound.look_over(dataset)
    return _federated(dataset, public, ())


def _federated(
    dataset: Dataset, public: Rows | None, clients: tuple[Samples, ...]
) -> FederatedData:
    if dataset.own:
        raise ConfigError(
            f"data.text.tokenizer names {len(dataset.tokenizers)} tokenisers, and what is written "
            "in a federation is in the tokens of one: name one; a teacher with a tokeniser of its "
            "own goes with 'fedkd distil' (way 'sequence-level')"
        )
    return FederatedData(
        name=dataset.name,
        classes=dataset.classes,
        class_names=dataset.class_names,
        clients=clients,
        public=public,
        test=dataset.test,
        features=dataset.features,
        scale=dataset.scale,
        targets=dataset.targets,
        tokenizers=dataset.tokenizers,
        length=dataset.length,
    )


def _ready(
    data: config.Source, seed: int, targets: Targets, *, scaled: bool = True
) -> tuple[Dataset, Rows | None, Tensor]:
    """The data set, the public inputs, and the indices of the training samples that stay private.

    Rows are drawn as they were read, and scaled after that.
    """
    dataset = _stored(data, seed, targets)
    public: Rows | None = None
    private, scale = torch.arange(len(dataset.train)), False
    if isinstance(data, config.Data) and data.public is not None:
        public, private, source = _public(data, data.public, dataset, seed)
        scale = data.scale == "public"
        if data.public.test:
            dataset = replace(dataset, test=source.test)
    dataset = stream.staged(dataset, data.stream)
    if scaled:
        dataset = scaling.scaled(dataset, data.limits, public if scale else None)
    if public is not None and dataset.scale:
        public = scaling.apply(public, dataset.features, dataset.scale)
    return dataset, public, private


def _stored(data: config.Source, seed: int, targets: Targets) -> Dataset:
    """What `data.name` leads to, as it is stored: Python objects, or what `read` finds."""
    if loader.is_path(data.name):
        return loader.load(data.name, data, seed=seed, targets=targets)
    if given.is_given(data.name):
        return given.load(data.name, data, seed=seed, targets=targets)
    return read(data, seed, targets)


def _public(
    data: config.Data, asked: config.PublicData, dataset: Dataset, seed: int
) -> tuple[Rows, Tensor, Dataset]:
    """The public inputs, the indices of the samples that stay private, and whose the inputs are."""
    held_out = asked.source == "held-out"
    if held_out:
        source = dataset
    else:
        source = _of_its_own(data, asked, dataset, seed)
        found, expected = (shapes_of(each.train.x) for each in (source, dataset))
        if found != expected:
            raise DataError(
                f"data.public.source = {asked.source!r} has samples of shape {found}; "
                f"expected {expected} as in {dataset.name!r}"
            )
        if asked.test and source.class_names != dataset.class_names:
            raise DataError(
                f"data.public.test: {asked.source!r} has the classes "
                f"{', '.join(source.class_names)}; expected those of {dataset.name!r}: "
                f"{', '.join(dataset.class_names)}"
            )
        if source.features != dataset.features:
            raise DataError(
                f"data.public.source = {asked.source!r} has the columns "
                f"{', '.join(source.features) or 'without names'}; expected those of "
                f"{dataset.name!r}, in their order: {', '.join(dataset.features) or 'no names'}"
            )
    most = len(source.train) - held_out  # at least one sample stays private
    if asked.size > most:
        raise ConfigError(
            f"data.public.size is {asked.size}; expected at most {most}, as {source.name!r} "
            f"has {len(source.train)} training samples"
        )
    natural = isinstance(data.partition, config.Natural)
    order = _hashed(source, seed) if natural else _drawn(source, seed)
    chosen, rest = order[: asked.size].sort().values, order[asked.size :].sort().values
    if not held_out:
        return take(source.train.x, chosen), torch.arange(len(dataset.train)), source
    _nobody_vanished(dataset, data, rest)
    return take(source.train.x, chosen), rest, source


def _of_its_own(
    data: config.Data, asked: config.PublicData, dataset: Dataset, seed: int
) -> Dataset:
    """The data set that the public inputs are taken from, as it is stored."""
    path = Path(asked.source).expanduser()
    if data.text is not None:
        return texts.unlabelled(path, data, dataset)
    if asked.source not in NAMES and folder.holds_pictures(path):
        return folder.unlabelled(path, data)
    if dataset.features and files.is_table(asked.source):
        found = table.unlabelled(path, data, dataset.features)
        if found is not None:
            return found
    changes: dict[str, Any] = {"name": asked.source, "clients": (), "test": None, "tile": None}
    if not files.is_table(asked.source):
        # of a table's columns alone
        changes |= {"ignore": (), "codes": {}, "stream": None, "interactions": None}
    if asked.source in NAMES or files.is_table(asked.source):
        changes |= {"range": None, "layout": None}  # of arrays alone
    return _stored(data.model_copy(update=changes), seed, dataset.targets)


def _drawn(source: Dataset, seed: int) -> Tensor:
    return torch.randperm(len(source.train), generator=rng.stream(seed, purpose="public"))


def _hashed(source: Dataset, seed: int) -> Tensor:
    """By a hash of each sample alone, so that one private record more or less moves no other.

    Where clients are natural, that is: their data is where it is. Every other partition deals all
    records anew anyway.
    """
    y = source.train.y.tolist()
    named = source.targets == "classes" and source.train.y.dim() == 1  # else nobody knows targets
    names = [source.class_names[n] if named else repr(n) for n in y]
    return torch.from_numpy(
        hashes(source.train.x, names, seed=seed, purpose="public").argsort(kind="stable")
    )


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
