"""A tiny data set in the form in which MNIST and its kin are published."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedkd.data.readers.idx import IdxFile
from fedkd.data.readers.sources import PublishedSet


def idx_bytes(values: NDArray[np.uint8]) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return header + values.tobytes()


@dataclass(frozen=True)
class Published:
    """Arrays, the source that describes them, and the folder in which their files lie."""

    arrays: tuple[NDArray[np.uint8], ...]
    source: PublishedSet
    folder: Path


def publish(folder: Path) -> Published:
    draw = np.random.default_rng(5)
    arrays = (
        draw.integers(0, 256, (6, 4, 3), np.uint8),
        draw.integers(0, 2, (6,), np.uint8),
        draw.integers(0, 256, (2, 4, 3), np.uint8),
        np.array([0, 1], np.uint8),
    )
    parts = []
    for name, values in zip(
        ("images", "labels", "test-images", "test-labels"), arrays, strict=True
    ):
        content = idx_bytes(values)
        file = f"{name}.gz"
        (folder / file).write_bytes(gzip.compress(content))
        parts.append(IdxFile(file, values.shape, hashlib.sha256(content).hexdigest()))
    one, two, three, four = parts
    source = PublishedSet("tiny", "http://127.0.0.1:9", ("cat", "dog"), (one, two, three, four))
    return Published(arrays, source, folder)
