"""Pictures in a data set as Hugging Face's library stores it: a column of them, one of labels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedkd import config
from fedkd.data import targets as forms
from fedkd.data.readers.arrays import Array, FaultError
from fedkd.data.readers.pictures import folder, picture, records
from fedkd.data.readers.pictures.folder_kinds import KINDS, Labelled, check_mask
from fedkd.data.readers.pictures.form import PictureForm
from fedkd.data.readers.tables import arrow, labels
from fedkd.data.types import Dataset, Samples
from fedkd.errors import DataError
from fedkd.names import choices
from fedkd.tasks import Targets

_KINDS: tuple[Targets, ...] = ("classes", "identities", "masks")
_NOBODY = "everybody"


def load(path: Path, source: config.Source, *, seed: int, targets: Targets) -> Dataset:
    """Read pictures with classes or masks, as `folder.load` does.

    Args:
        path: of the data set.
        source: the section `[data]`; its `label` is the column of classes or of masks, and `client`
            the one that says whose a picture is.
        seed: keys the hashes that hold pictures out, where there is no split for testing.
        targets: what the task asks for.

    Raises:
        DataError: names the folder and what is missing, damaged or does not fit.
    """
    try:
        if targets not in _KINDS:
            raise FaultError(f"holds pictures, and the task asks for {targets}: give a folder")
        train, test = arrow.parts(path)
        found = _cells(train, source)
        tested = None if test is None else _cells(test, source)
        names = () if targets == "masks" else _names(train, source, [*found, *(tested or [])])
        form = PictureForm.of(source, range=source.range, tile=source.tile)
        parties: dict[str, list[records.Picture]] = {}
        for each in found:
            read = _picture(each, names, form, targets)
            parties.setdefault(each.client, []).append(read)
        dataset = folder.assembled(
            {client: parties[client] for client in sorted(parties)},
            None if tested is None else [_picture(e, names, form, targets) for e in tested],
            source.model_copy(update={"name": path.name}),
            names=names,
            targets=targets,
            seed=seed,
        )
    except FaultError as fault:
        raise DataError(f"{path}: {' '.join(str(fault).split())}") from fault
    return dataset if source.client else replace(dataset, groups=None)


def load_rows(
    path: Path, form: PictureForm, *, label: str, class_names: Sequence[str], targets: Targets
) -> Samples:
    """Read a party's own pictures, all of which are for training.

    Args:
        path: as for `load`.
        form: how pictures are read.
        label: the column of classes or of masks.
        class_names: those that the parties agreed on.
        targets: what they agreed on.

    Raises:
        DataError: as `load`.
    """
    try:
        if targets not in ("classes", "masks"):
            raise FaultError(f"holds pictures, and the parties agreed on {targets}")
        train, _ = arrow.parts(path)
        names = tuple(class_names)
        found = [
            _picture(each, names, form, targets)
            for each in _cells(train, config.Source(label=label))
        ]
        return folder.as_samples(found, form, class_names=names, targets=targets)
    except FaultError as fault:
        raise DataError(f"{path}: {' '.join(str(fault).split())}") from fault


class _Cells(NamedTuple):
    """One record as it is stored."""

    place: str
    picture: Any
    label: Any
    client: str


def _cells(split: Path, source: config.Source) -> list[_Cells]:
    columns, label = arrow.features(split), source.labels[0]
    pictures = [name for name, kind in columns.items() if kind == "Image" and name != label]
    for key, name in (("label", label), ("client", source.client)):
        if name is not None and name not in columns:
            raise FaultError(f"has no column {name!r} (data.{key}): {choices(name, columns)}")
    if len(pictures) != 1:
        raise FaultError(f"has pictures in {', '.join(pictures) or 'no column'}; expected one")
    wanted = {pictures[0], label, *([source.client] if source.client else [])}
    return [
        _Cells(
            f"record {number}",
            record[pictures[0]],
            record[label],
            str(record[source.client]) if source.client else _NOBODY,
        )
        for number, record in enumerate(arrow.records(split, wanted.__contains__), start=1)
    ]


def _names(split: Path, source: config.Source, cells: Sequence[_Cells]) -> tuple[str, ...]:
    """The names of classes, which the data set itself may know."""
    known = arrow.class_names(split).get(source.labels[0])
    return tuple(known) if known else labels.encode([str(each.label) for each in cells])[1]


def _picture(
    cells: _Cells, names: tuple[str, ...], form: PictureForm, targets: Targets
) -> records.Picture:
    kind, name = KINDS[targets], cells.place
    values = form.values(name, _decoded(name, cells.picture, plain=True, turn=not kind.located))
    if targets == "masks":
        mask = _decoded(f"the mask of {name}", cells.label, plain=False, turn=False)
        target = forms.mask(check_mask(f"the mask of {name}", mask))
    else:
        if labels.plain(str(cells.label)) not in names:
            raise FaultError(f"{name} has the label {cells.label!r}; expected {', '.join(names)}")
        target = np.array(names.index(labels.plain(str(cells.label))))
    return records.checked(Labelled(Path(name), target), values, form, kind)


def _decoded(name: str, stored: Any, *, plain: bool, turn: bool) -> Array:
    content = stored.get("bytes") if isinstance(stored, Mapping) else None
    if content is None:
        raise FaultError(f"{name} has no bytes of a picture: save the data set by save_to_disk")
    return picture.decoded(name, BytesIO(content), plain=plain, turn=turn)
