"""Data where parties are apart: what all of them hold in one file, and each one's own.

The shared file is safetensors: the test set, the public set if there is one, and the names of
classes and features. Of a table each column is a tensor of its own, `test/x.NAME`. The same data
gives the same bytes, so its SHA-256 says which it is.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fedkd.config import Format, Interactions, Layout, TextColumns
from fedkd.data import scaling, sound
from fedkd.data.readers import interactions, npz
from fedkd.data.readers.pictures import folder, stored
from fedkd.data.readers.pictures.form import PictureForm
from fedkd.data.readers.tables import arrow, table
from fedkd.data.readers.tables.cells import Point
from fedkd.data.texts import reader as texts
from fedkd.data.texts.tokenizer import Tokenizer
from fedkd.data.types import FederatedData, Limits, Samples
from fedkd.errors import DataError
from fedkd.rows import Rows, Table, shapes_of, whole
from fedkd.tasks import Targets, Vocabulary

FORMAT = "fedkd shared data 1"


def to_bytes(shared: FederatedData) -> bytes:
    """What all parties hold, without any client's data, as the bytes of a file."""
    tensors = {**_tensors("test/x", shared.test.x), "test/y": shared.test.y}
    if shared.public is not None:
        tensors |= _tensors("public", shared.public)
    about = {"name": shared.name, "classes": shared.class_names, "features": shared.features}
    scale = {"scale": shared.scale} if shared.scale else {}
    targets = {"targets": shared.targets} if shared.targets != "classes" else {}
    words: dict[str, Any] = {}
    if shared.tokenizers:
        kept = {name: asdict(each) for name, each in shared.tokenizers.items()}
        words = {"tokenizers": kept, "length": shared.length}
    # One key: safetensors writes several in any order.
    named = {FORMAT: json.dumps(about | scale | targets | words)}
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, named)


def _tensors(name: str, rows: Rows) -> dict[str, Tensor]:
    """Records as tensors in memory, by name."""
    if not isinstance(rows, Table):
        return {name: whole(rows)}
    return {f"{name}.{column}": whole(each) for column, each in rows.columns.items()}


def _rows(name: str, tensors: Mapping[str, Tensor]) -> Rows | None:
    """What `_tensors` made, back again; None if nothing is there."""
    if name in tensors:
        return tensors[name]
    mark = f"{name}."
    columns = {key.removeprefix(mark): x for key, x in tensors.items() if key.startswith(mark)}
    return Table(dict(sorted(columns.items()))) if columns else None


def read_shared(path: Path, *, digest: str | None = None) -> FederatedData:
    """Read what `to_bytes` made.

    Args:
        path: the file.
        digest: the SHA-256 that it must have, in hexadecimal.

    Raises:
        DataError: it is missing, damaged, no such file, or another one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; expected the file that 'fedkd deploy share' writes"
        ) from error
    found = sha256(content).hexdigest()
    if digest is not None and found != digest:
        raise DataError(
            f"{path}: its SHA-256 is {found[:16]}..., and the experiment was made for "
            f"{digest[:16]}...: all parties need the same proxy set and test set, get the "
            "coordinator's file"
        )
    try:
        return parse_shared(content)
    except ValueError as error:
        raise DataError(
            f"{path}: is not the file that 'fedkd deploy share' writes, or it is damaged"
        ) from error


def parse_shared(content: bytes) -> FederatedData:
    """What `to_bytes` made, back again.

    Raises:
        ValueError: it is something else.
    """
    try:
        tensors = load(content)
        (length,) = struct.unpack_from("<Q", content)
        about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][FORMAT])
        class_names = tuple(about["classes"])
        test = _rows("test/x", tensors)
        if test is None:
            raise KeyError("test/x")
        return FederatedData(
            name=about["name"],
            classes=len(class_names),
            class_names=class_names,
            clients=(),
            public=_rows("public", tensors),
            test=Samples(test, tensors["test/y"]),
            features=tuple(about["features"]),
            scale={c: (low, high) for c, (low, high) in about.get("scale", {}).items()},
            targets=_targets(about.get("targets", "classes")),
            tokenizers={n: _tokenizer(**each) for n, each in about.get("tokenizers", {}).items()},
            length=about.get("length", 0),
        )
    except (SafetensorError, AttributeError, KeyError, TypeError, struct.error) as error:
        raise ValueError(f"Expected {FORMAT!r}.") from error


def seen_from(shared: FederatedData, clients: int, *, samples: dict[int, Samples]) -> FederatedData:
    """The federation's data as one party sees it: its `samples`, and of all others nothing.

    Args:
        shared: what all parties hold.
        clients: how many clients there are.
        samples: the party's data by its client's index; empty for the server.
    """
    nothing = shared.test.subset(torch.arange(0))
    return replace(shared, clients=tuple(samples.get(client, nothing) for client in range(clients)))


def _targets(name: str) -> Targets:
    found: dict[str, Targets] = {kind: kind for kind in get_args(Targets)}
    return found[name]


def _tokenizer(content: str, vocabulary: Mapping[str, int]) -> Tokenizer:
    return Tokenizer(content, Vocabulary(**vocabulary))


def read_own(
    path: Path,
    format: Format,
    *,
    label: str | tuple[str, ...],
    shared: FederatedData,
    decimal: Point = ".",
    layout: Layout | None = None,
    range: Limits | None = None,
    pictures: PictureForm | None = None,
    columns_of_users: Interactions | None = None,
    columns_of_texts: TextColumns | None = None,
) -> Samples:
    """A party's own data, scaled as the shared data is.

    Args:
        path: an .npz file or a folder with `x_train` and `y_train`, a folder of pictures, or a
            table, all of whose rows count.
        format: which of the two it is.
        label: the column of classes, or of what a text is held against; other targets are found
            by name.
        shared: what it must fit: shape, classes, the columns by name, and their scale.
        decimal: CSV: what stands in front of a number's decimals.
        layout: arrays: see `config.Source`.
        range: arrays: see `config.Source`.
        pictures: a folder of pictures: what becomes of them.
        columns_of_users: CSV of a recommender: its columns, by the usual names unless given.
        columns_of_texts: a table of texts: its columns, by the usual name unless given.

    Raises:
        DataError: it is missing, corrupt, empty or does not fit.
        ConfigError: a value cannot be put on the scale.
    """
    if format == "npz" and arrow.splits(path):
        format = "npz" if arrow.holds_pictures(path) and not shared.tokenizers else "csv"
    if format == "npz":
        form = pictures or PictureForm(range=range)
        samples = _arrays(path, str(label), layout, form, shared)
    elif shared.tokenizers:
        samples = texts.load_rows(
            path,
            columns_of_texts or TextColumns(),
            label=(label,) if isinstance(label, str) else label,
            class_names=shared.class_names,
            targets=shared.targets,
            tokenizers=shared.tokenizers,
            length=shared.length,
        )
    elif format == "text" or not isinstance(label, str):
        raise DataError(
            f"{path}: is a table of texts, and the parties agreed on samples of shape "
            f"{shared.shape}: give such samples"
        )
    elif shared.targets == "items":
        how = columns_of_users or Interactions()
        samples = interactions.load_rows(path, how, items=shared.class_names)
    elif not shared.features:
        raise DataError(
            f"{path}: is a CSV file, and the parties agreed on samples of shape {shared.shape} "
            "without names of columns; give the data as .npz"
        )
    else:
        samples = table.load_rows(
            path,
            label=label,
            features=shared.features,
            class_names=shared.class_names,
            decimal=decimal,
            targets=shared.targets,
        )
    found, expected = shapes_of(samples.x), shapes_of(shared.test.x)
    if found != expected:
        raise DataError(
            f"{path}: a sample has shape {found}; expected {expected}, as the parties agreed"
        )
    if shared.tokenizers:
        return samples
    sound.unscaled(path.name, samples.x, shared.features, shared.scale)
    return replace(samples, x=scaling.apply(samples.x, shared.features, shared.scale))


def _arrays(
    path: Path, label: str, layout: Layout | None, form: PictureForm, shared: FederatedData
) -> Samples:
    """Arrays, or pictures in a folder or a stored data set."""
    names, kind = shared.class_names, shared.targets
    if arrow.splits(path):
        return stored.load_rows(path, form, label=label, class_names=names, targets=kind)
    if folder.holds_pictures(path):
        return folder.load_rows(path, form, class_names=names, targets=kind)
    free = scaling.ALL in shared.scale or bool(shared.tokenizers)
    as_stored = npz.ArrayForm(layout, form.range, unbounded=free)
    samples = npz.load_rows(path, classes=shared.classes, form=as_stored, kind=kind)
    return replace(samples, x=_as_tokens(path, samples.x, shared.vocabularies))


def _as_tokens(path: Path, x: Rows, vocabularies: Mapping[str, Vocabulary]) -> Rows:
    """Stored numbers as token numbers, int64; other columns of a table as they are.

    Raises:
        DataError: one is beyond the vocabulary.
    """
    if isinstance(x, Table):
        return Table(
            {
                name: _as_tokens(path, each, {"": vocabularies[name]})
                if name in vocabularies
                else each
                for name, each in x.columns.items()
            }
        )
    if not vocabularies:
        return x
    ids, words = whole(x), next(iter(vocabularies.values()))
    wrong = (ids < 0) | (ids >= words.size) | (ids != ids.floor())
    if wrong.any():
        row = int(wrong.flatten(1).any(dim=1).nonzero()[0])
        value = ids[row][wrong[row]][0].item()
        raise DataError(
            f"{path}: x_train has {value:g} in sample {row}; expected token numbers 0 to "
            f"{words.size - 1}, of the tokeniser that the parties agreed on"
        )
    return ids.long()


def write_own(path: Path, samples: Samples) -> None:
    """Write one client's data as `read_own` reads it where its layout is `as-stored`."""
    with path.open("wb") as file:
        tensors = {**_tensors("x_train", samples.x), "y_train": samples.y}
        arrays: dict[str, Any] = {name: each.numpy() for name, each in tensors.items()}
        np.savez(file, **arrays)
