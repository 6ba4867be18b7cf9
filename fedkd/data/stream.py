"""Data that comes in stages, one after the other.

A record's stage follows from its class, from a column, or from its place in time.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

import torch
from torch import Tensor

from fedkd.config import Stream
from fedkd.data.types import Dataset, FederatedData, Samples
from fedkd.errors import ConfigError, DataError
from fedkd.names import choices
from fedkd.tasks import Targets
from fedkd.tasks.stages import Scenario, Stages


def stages(stream: Stream | None, names: Sequence[str], targets: Targets) -> Stages | None:
    """The stages that a configuration names; None where it names none.

    Args:
        stream: the section `[data.stream]`; None without one.
        names: of the classes, labels or numbers.
        targets: what the data's targets are.

    Raises:
        ConfigError: stages are of classes, and records have none; a class is in no stage, is not
            known, or there are fewer classes than stages.
    """
    if stream is None:
        return None
    if stream.by != "classes":
        given = stream.stages
        titles = (
            [f"part {n}" for n in range(1, given + 1)]
            if isinstance(given, int)
            else [", ".join(stage) for stage in given]
        )
        return Stages("domain-incremental", tuple(titles), rounds=stream.rounds)
    if targets != "classes":
        raise ConfigError(
            f"data.stream.by is 'classes', and the task's targets are {targets}: expected "
            "'domains' or 'time'"
        )
    parts = _dealt(stream, names)
    of_class = torch.empty(len(names), dtype=torch.int64)
    for number, part in enumerate(parts):
        of_class[list(part)] = number
    scenario: Scenario = stream.scenario
    titles = [", ".join(names[c] for c in part) for part in parts]
    return Stages(scenario, tuple(titles), of_class, stream.rounds)


def _dealt(stream: Stream, names: Sequence[str]) -> list[list[int]]:
    """The classes of each stage."""
    if isinstance(stream.stages, int):
        if stream.stages > len(names):
            raise ConfigError(
                f"data.stream.stages is {stream.stages}, and the data has {len(names)} classes: "
                "expected at most as many"
            )
        return [part.tolist() for part in torch.arange(len(names)).tensor_split(stream.stages)]
    # A class may be named by its number where no class has that name.
    codes = {str(code): code for code in range(len(names))}
    codes |= {name: code for code, name in enumerate(names)}
    for name in (name for stage in stream.stages for name in stage):
        if name not in codes:
            raise ConfigError(
                f"data.stream.stages names class {name!r}, which the data has not: "
                f"{choices(name, names, lead='it has ')}"
            )
    parts = [[codes[name] for name in stage] for stage in stream.stages]
    found = [code for part in parts for code in part]
    if missing := [name for code, name in enumerate(names) if code not in found]:
        raise ConfigError(
            f"data.stream.stages leaves out class {missing[0]!r}: put it into a stage, or leave "
            "its records out of the data"
        )
    if len(set(found)) < len(found):
        raise ConfigError(
            "data.stream.stages names a class twice, by its name and by its number: expected each "
            "once"
        )
    return parts


def of_cells(cells: Sequence[str], stream: Stream, *, where: str) -> Tensor:
    """The stage of each record by what its column says: int64 (N,).

    Of domains by name. Of time equal parts of all records in the column's order, as numbers where
    all cells are some, else as text, such as 2026-11-28; equal cells are of one part.

    Args:
        cells: N.
        stream: the section `[data.stream]`.
        where: names the column in an error.

    Raises:
        DataError: a domain is in no stage, or cells have no order: some are finite
            numbers and some are not.
    """
    if isinstance(stream.stages, int):
        return _equal_parts(_ranked(cells, where), stream.stages)
    codes = {name: number for number, stage in enumerate(stream.stages) for name in stage}
    if unknown := [cell for cell in dict.fromkeys(cells) if cell not in codes]:
        raise DataError(
            f"{where}: {unknown[0]!r} is in no stage of data.stream.stages: put it into one, or "
            "leave its rows out"
        )
    return torch.tensor([codes[cell] for cell in cells], dtype=torch.int64)


def _ranked(cells: Sequence[str], where: str) -> Tensor:
    """How many records stand before each, equal ones alike: int64 (N,)."""
    numbers = [_number(cell) for cell in cells]
    told = [number for number in numbers if number is not None]
    keys: Sequence[float | str] = told or cells
    # As text 10 would come before 9, so that one odd cell would turn the order of all.
    odd = [
        cell
        for cell, number in zip(cells, numbers, strict=True)
        if told and (number is None or not isfinite(number))
    ]
    if odd:
        raise DataError(
            f"{where}: {odd[0]!r} has no place among the others in time: expected numbers in all "
            "rows, or text such as 2026-11-28 in all; fill it in, or drop the row"
        )
    order = sorted(range(len(keys)), key=keys.__getitem__)
    ranks = torch.empty(len(keys), dtype=torch.int64)
    rank = 0
    for place, row in enumerate(order):
        rank = place if place == 0 or keys[row] != keys[order[place - 1]] else rank
        ranks[row] = rank
    return ranks


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _equal_parts(ranks: Tensor, count: int) -> Tensor:
    return ranks * count // max(1, len(ranks))


def staged(dataset: Dataset, stream: Stream | None) -> Dataset:
    """The data set, each record with its stage.

    Raises:
        ConfigError: see `stages`, or the data does not say what stages are made of.
        DataError: a stage has no record for training, or none for testing.
    """
    found = stages(stream, dataset.class_names, dataset.targets)
    if stream is None or found is None:
        return dataset
    train, test = (_with_stages(each, found, stream) for each in (dataset.train, dataset.test))
    for samples, what in ((train, "training"), (test, "testing")):
        for number, name in enumerate(found.names):
            if not len(samples.of_stage(number)):
                raise DataError(
                    f"data.stream: stage {number + 1} ({name}) has no record for {what} in "
                    f"{dataset.name!r}: leave it out, or give it records"
                )
    return replace(dataset, train=train, test=test)


def of_party(federated: FederatedData, stream: Stream | None) -> FederatedData:
    """What one party of a deployment sees, each record with its stage.

    Raises:
        ConfigError: see `stages`, or stages do not follow from classes: a party's order and columns
            are its own.
    """
    found = stages(stream, federated.class_names, federated.targets)
    if stream is None or found is None:
        return federated
    if (of_class := found.of_class) is None:
        raise ConfigError(
            f"data.stream.by is {stream.by!r}, and where parties are apart a record's stage "
            "follows from its class alone: choose by = 'classes', or simulate"
        )

    def with_stages(samples: Samples) -> Samples:
        return replace(samples, stage=of_class[samples.y])

    clients = tuple(map(with_stages, federated.clients))
    return replace(federated, clients=clients, test=with_stages(federated.test))


def _with_stages(samples: Samples, found: Stages, stream: Stream) -> Samples:
    if samples.stage is not None:  # by a column, as it was read
        return samples
    if found.of_class is not None:
        return replace(samples, stage=found.of_class[samples.y])
    if stream.by == "domains" or stream.column is not None:
        raise ConfigError(
            f"data.stream.by is {stream.by!r}, by a column, and the records here have none: name a "
            ".csv file with data.stream.column, or choose by = 'classes'"
        )
    return replace(samples, stage=_equal_parts(torch.arange(len(samples)), len(found)))
