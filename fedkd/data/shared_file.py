"""Data where parties are apart: what all of them hold in one file, and each one's own.

The shared file is safetensors: the test set, the public set if there is one, and the names of
classes and features. The same data gives the same bytes, so its SHA-256 says which it is.
"""

import json
import struct
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fedkd.config import Format
from fedkd.data import npz, scaling, sound, table
from fedkd.data.csv_file import Decimal
from fedkd.data.types import FederatedData, Samples
from fedkd.errors import DataError

FORMAT = "fedkd shared data 1"


def to_bytes(shared: FederatedData) -> bytes:
    """What all parties hold, without any client's data, as the bytes of a file."""
    tensors = {"test/x": shared.test.x, "test/y": shared.test.y}
    if shared.public is not None:
        tensors["public"] = shared.public
    about = {"name": shared.name, "classes": shared.class_names, "features": shared.features}
    scale = {"scale": shared.scale} if shared.scale else {}
    # One key: safetensors writes several in any order.
    named = {FORMAT: json.dumps(about | scale)}
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, named)


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
        return FederatedData(
            name=about["name"],
            classes=len(class_names),
            class_names=class_names,
            clients=(),
            public=tensors.get("public"),
            test=Samples(tensors["test/x"], tensors["test/y"]),
            features=tuple(about["features"]),
            scale={c: (low, high) for c, (low, high) in about.get("scale", {}).items()},
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
    nothing = Samples(shared.test.x[:0], shared.test.y[:0])
    return replace(shared, clients=tuple(samples.get(client, nothing) for client in range(clients)))


def read_own(
    path: Path, format: Format, *, label: str, shared: FederatedData, decimal: Decimal = "."
) -> Samples:
    """A party's own data, scaled as the shared data is.

    Args:
        path: an .npz file with `x_train` and `y_train`, or a CSV file, all of whose rows count.
        format: which of the two it is.
        label: CSV: the column of labels.
        shared: what it must fit: shape, classes, the columns by name, and their scale.
        decimal: CSV: what stands in front of a number's decimals.

    Raises:
        DataError: it is missing, corrupt, empty or does not fit.
        ConfigError: a value cannot be put on the scale.
    """
    if format == "npz":
        samples = npz.load_rows(path, classes=shared.classes)
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
        )
    if tuple(samples.x.shape[1:]) != shared.shape:
        raise DataError(
            f"{path}: a sample has shape {tuple(samples.x.shape[1:])}; expected {shared.shape}, "
            "as the parties agreed"
        )
    columns = scaling.names(shared.features, shared.shape)
    sound.unscaled(path.name, samples.x, shared.features, shared.scale)
    return Samples(scaling.apply(samples.x, columns, shared.scale), samples.y)


def write_own(path: Path, samples: Samples) -> None:
    """Write one client's data as `read_own` reads it."""
    with path.open("wb") as file:
        np.savez(file, x_train=samples.x.numpy(), y_train=samples.y.to(torch.int64).numpy())
