"""Official files: checked by the digests that are known of them, packed or not."""

import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedkd.data.readers.arrays import LEFT, Array
from fedkd.data.readers.fetch import Remote
from fedkd.data.types import Samples
from fedkd.errors import DataError
from fedkd.rows import Mapped, Rows

REMEDY = "fetch the official file again"
_CHUNK = 1 << 20

Reader = Callable[[str], bytes]
"""Reads a file by its path inside the set's folder, or inside an archive."""


@dataclass(frozen=True)
class OfficialFile:
    """A file as its authors published it.

    Attributes:
        file: its path in the set's folder, with slashes.
        digest: SHA-256 or MD5 of its bytes, in hexadecimal; which it is, its length says. None:
            we know none that was published.
    """

    file: str
    digest: str | None = None

    def check(self, path: Path) -> None:
        """Refuse a file of other bytes.

        Raises:
            DataError: names the file, its digest and the official one.
        """
        if self.digest is None:
            return
        kind = "sha256" if len(self.digest) == 64 else "md5"
        try:
            with path.open("rb") as stream:
                found = hashlib.file_digest(
                    stream, partial(hashlib.new, kind, usedforsecurity=False)
                ).hexdigest()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}; {REMEDY}") from error
        if found != self.digest:
            shown = {"sha256": "SHA-256", "md5": "MD5"}[kind]
            raise DataError(f"{path}: {shown} is {found}, expected {self.digest}; {REMEDY}")


@dataclass(frozen=True)
class Archive:
    """A file that is fetched: one that packs others, or one alone.

    Attributes:
        url: of the file.
        size: how many bytes it has.
        sha256: of these, in hexadecimal.
    """

    url: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """What it is called."""
        return self.url.rpartition("/")[2]

    @property
    def remote(self) -> Remote:
        """How it is fetched."""
        return Remote(self.url, self.file, self.size, self.official.check)

    @property
    def official(self) -> OfficialFile:
        """The file as it was published."""
        return OfficialFile(self.file, self.sha256)


@contextmanager
def unpacked(folder: Path, files: Sequence[OfficialFile]) -> Iterator[Reader]:
    """Read files that lie in a folder, those with a known digest checked first."""
    for file in files:
        file.check(folder / file.file)
    yield partial(_bytes, folder)


@contextmanager
def packed(archive: OfficialFile, folder: Path, files: Sequence[str]) -> Iterator[Reader]:
    """Read what an archive (.zip or .tar.gz) packs, after its digest was checked.

    Nothing is written to disk. Of a .tar.gz, which cannot be read from its middle, `files` are read
    at once.

    Raises:
        DataError: it is another file, or lacks one.
    """
    path = folder / archive.file
    archive.check(path)
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as opened:
                yield partial(_member, path, opened)
        else:
            held = _from_tar(path, files)
            yield partial(_held, path, held)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); {REMEDY}") from error


def _bytes(folder: Path, file: str) -> bytes:
    try:
        return (folder / file).read_bytes()
    except OSError as error:
        raise DataError(f"{folder / file}: {error.strerror or error}; {REMEDY}") from error


def _member(path: Path, opened: zipfile.ZipFile, file: str) -> bytes:
    try:
        return opened.read(file)
    except KeyError as error:
        raise DataError(f"{path}: lacks {file}; {REMEDY}") from error


def _held(path: Path, held: dict[str, bytes], file: str) -> bytes:
    if file not in held:
        raise DataError(f"{path}: lacks {file}; {REMEDY}")
    return held[file]


def _from_tar(path: Path, files: Sequence[str]) -> dict[str, bytes]:
    found = {}
    with tarfile.open(path, "r|gz") as opened:
        for member in opened:
            stream = opened.extractfile(member) if member.name in files else None
            if stream is not None:
                found[member.name] = stream.read()
    return found


def samples(images: NDArray[np.uint8], labels: Array) -> Samples:
    """Images uint8 (N, C, H, W) and their classes (N,) as float32 in [0, 1] and int64.

    Large sets stay bytes, and are converted a batch at a time: a quarter of the memory.
    """
    rows: Rows = Mapped(images, scaled) if images.nbytes > LEFT else scaled(images)
    return Samples(rows, torch.from_numpy(labels.astype(np.int64)))


def scaled(images: Array) -> Tensor:
    """Bytes (N, C, H, W) as float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32) / np.float32(255))


def checked_labels(where: str, labels: Array, count: int, classes: int) -> Array:
    """Labels (N,) of `count` images, all of them classes.

    Raises:
        DataError: names the file and the first that is none.
    """
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels are {labels.dtype} of shape {labels.shape}; expected {count} "
            f"integers; {REMEDY}"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise DataError(
            f"{where}: label {int(wrong[0])} is of class {labels[wrong[0]]}; expected 0 to "
            f"{classes - 1}; {REMEDY}"
        )
    return labels
