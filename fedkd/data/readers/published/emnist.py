"""EMNIST (Cohen et al. 2017, 1702.05373): handwritten characters of NIST's Special Database 19.

Six splits of the same characters, each a data set of its own, as idx.gz files (packed in `gzip.zip`
or not) or as MATLAB files (in `matlab.zip`), which alone say who wrote a character. In both forms
images lie column by column, so that read as rows they are transposed: here they stand upright.
SHA-256 of `gzip.zip` is that of TensorFlow Datasets' `emnist.txt`, of `matlab.zip` that of
MLDatasets.jl; of the files in them we know none. So MATLAB files are read from the archive
alone (`matlab`).
"""

import io
import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedkd.data.readers import idx, places
from fedkd.data.readers.arrays import Array, FaultError
from fedkd.data.readers.published import matlab, official
from fedkd.data.readers.published.official import Archive, OfficialFile, Reader
from fedkd.data.types import Dataset
from fedkd.errors import DataError

PAGE = "www.nist.gov/itl/products-and-services/emnist-dataset"
FOLDER = "emnist"
ARCHIVE = Archive(
    "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
    561_753_746,
    "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
)
MATLAB = OfficialFile(
    "matlab.zip", "e1fa805cdeae699a52da0b77c2db17f6feb77eed125f9b45c022e7990444df95"
)
_SIDE = 28
_LETTERS = string.ascii_uppercase
_ALL = (*string.digits, *_LETTERS, *string.ascii_lowercase)
# Small letters that look like their capitals are one class with them.
_MERGED = (*string.digits, *_LETTERS, *"abdefghnqrt")


@dataclass(frozen=True)
class EmnistSplit:
    """One of the six splits.

    Attributes:
        split: what its files are called by.
        class_names: by label.
        images: how many there are for training and for testing.
        first: the files' label of the first class.
        archive: what packs the idx.gz files of all splits.
        matlab_archive: what packs the MATLAB files of all splits; it is not fetched.
    """

    split: str
    class_names: tuple[str, ...]
    images: tuple[int, int]
    first: int = 0
    archive: Archive = ARCHIVE
    matlab_archive: OfficialFile = MATLAB

    @property
    def name(self) -> str:
        """As `data.name` gives it."""
        return f"emnist-{self.split}"

    @property
    def wanted(self) -> places.Wanted:
        """The archive of MATLAB files, the four idx.gz files, or their archive."""
        forms = ((self.matlab_archive.file,), self._idx, (self.archive.file,))
        return places.Wanted(self.name, FOLDER, forms, (self.archive.remote,), PAGE)

    def load(self, folder: Path) -> Dataset:
        """Images (N, 1, 28, 28) in [0, 1]; of MATLAB files, each writer is a natural client.

        Raises:
            DataError: a file is damaged, or not the official one.
        """
        form = places.form_in(self.wanted, folder)
        if form == (self.matlab_archive.file,):
            file = f"matlab/{self.name}.mat"
            with official.packed(self.matlab_archive, folder, (file,)) as read:
                where = f"{folder / self.matlab_archive.file}: {file}"
                return self._from_matlab(where, read(file))
        if form == (self.archive.file,):
            with official.packed(self.archive.official, folder, self._idx) as read:
                return self._from_idx(folder / self.archive.file, read)
        with official.unpacked(folder, ()) as read:
            return self._from_idx(folder, read)

    @property
    def _idx(self) -> tuple[str, ...]:
        return tuple(
            f"gzip/{self.name}-{part}-{kind}-ubyte.gz"
            for part in ("train", "test")
            for kind in ("images-idx3", "labels-idx1")
        )

    def _from_idx(self, where: Path, read: Reader) -> Dataset:
        train, test = self.images
        shapes = ((train, _SIDE, _SIDE), (train,), (test, _SIDE, _SIDE), (test,))
        arrays = [
            idx.values(f"{where}: {file}", io.BytesIO(read(file)), idx.IdxFile(file, shape, None))
            for file, shape in zip(self._idx, shapes, strict=True)
        ]
        return self._dataset(f"{where}: {self.name}", arrays)

    def _from_matlab(self, where: str, content: bytes) -> Dataset:
        try:
            held = matlab.read(content, ("dataset",))["dataset"]
            arrays: list[Array] = []
            for part in ("train", "test"):
                arrays.append(matlab.field(held, part, "images"))
                labels = matlab.field(held, part, "labels")
                arrays.append(matlab.integers("labels", labels))
            writers = None
            if matlab.has_field(held, "train", "writers"):
                found = matlab.integers("writers", matlab.field(held, "train", "writers"))
                writers = np.unique(found, return_inverse=True)[1]
        except FaultError as fault:
            raise DataError(f"{where} {fault}; {official.REMEDY}") from fault
        for number, images in zip((0, 2), self.images, strict=True):
            x, expected = arrays[number], (images, _SIDE * _SIDE)
            if x.shape != expected or x.dtype != np.uint8:
                raise DataError(
                    f"{where}: images are {x.dtype} of shape {x.shape}; expected uint8 of "
                    f"{expected}; {official.REMEDY}"
                )
            arrays[number] = x.reshape(images, _SIDE, _SIDE)
        if writers is not None and len(writers) != self.images[0]:
            raise DataError(
                f"{where}: has {len(writers)} writers of {self.images[0]} characters; "
                f"{official.REMEDY}"
            )
        groups = None if writers is None else torch.from_numpy(writers.astype(np.int64))
        return self._dataset(where, arrays, groups)

    def _dataset(self, where: str, arrays: list[Array], groups: Tensor | None = None) -> Dataset:
        """Of images (N, 28, 28) as they lie in the files, and their labels."""
        classes = len(self.class_names)
        x, y, x_test, y_test = arrays
        train, test = (
            official.samples(
                _upright(images),
                official.checked_labels(
                    where, labels.astype(np.int64) - self.first, len(images), classes
                ),
            )
            for images, labels in ((x, y), (x_test, y_test))
        )
        return Dataset(
            name=self.name,
            train=train,
            test=test,
            classes=classes,
            class_names=self.class_names,
            groups=groups,
        )


def _upright(images: Array) -> NDArray[np.uint8]:
    """Images (N, 28, 28), transposed, as (N, 1, 28, 28)."""
    return np.ascontiguousarray(images.transpose(0, 2, 1))[:, None]


SPLITS = (
    EmnistSplit("byclass", _ALL, (697_932, 116_323)),
    EmnistSplit("bymerge", _MERGED, (697_932, 116_323)),
    EmnistSplit("balanced", _MERGED, (112_800, 18_800)),
    EmnistSplit("letters", tuple(_LETTERS), (124_800, 20_800), first=1),
    EmnistSplit("digits", tuple(string.digits), (240_000, 40_000)),
    EmnistSplit("mnist", tuple(string.digits), (60_000, 10_000)),
)
