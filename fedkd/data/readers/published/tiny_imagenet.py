"""Tiny-ImageNet (Stanford's course CS231n): 200 classes of ImageNet, 64x64 pixels.

The labels of its official test set were never published: its validation set is for testing, as in
published figures. SHA-256 of the archive is the one that several repositories give, and its MD5
that of Avalanche; of the pictures in it we know none.
"""

import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedkd.data.readers import places
from fedkd.data.readers.arrays import FaultError
from fedkd.data.readers.pictures import picture
from fedkd.data.readers.published import official
from fedkd.data.readers.published.official import Archive, Reader
from fedkd.data.types import Dataset
from fedkd.errors import DataError

PAGE = "cs231n.stanford.edu/tiny-imagenet-200.zip"
INSIDE = "tiny-imagenet-200"
_WNID = re.compile(r"n\d{8}")
# Nothing else may stand in a file whose names are read as paths.
_TESTED = re.compile(r"val_\d+\.JPEG")


@dataclass(frozen=True)
class TinyImages:
    """The set, in folders of JPEG files or in one archive.

    Attributes:
        classes: how many there are.
        images: of each class for training and for testing.
        side: pixels down and across.
        archive: what packs it.
        name: as `data.name` gives it; also the folder's name.
    """

    classes: int
    images: tuple[int, int]
    side: int
    archive: Archive
    name: str = "tiny-imagenet"

    @property
    def wanted(self) -> places.Wanted:
        """The three lists that lie beside the pictures, or the archive."""
        forms = (tuple(_LISTS.values()), (self.archive.file,))
        return places.Wanted(self.name, self.name, forms, (self.archive.remote,), PAGE)

    def load(self, folder: Path) -> Dataset:
        """Images (N, 3, 64, 64) in [0, 1], grey ones coloured; classes in the order of WordNet ids.

        Raises:
            DataError: a file is damaged or missing, or the archive is not the official one.
        """
        if places.form_in(self.wanted, folder) == (self.archive.file,):
            with official.packed(self.archive.official, folder, ()) as read:
                return self._dataset(folder / self.archive.file, read)
        with official.unpacked(folder, ()) as read:
            return self._dataset(folder, read)

    def _dataset(self, where: Path, read: Reader) -> Dataset:
        wnids = self._wnids(where, read)
        train = [
            (f"{INSIDE}/train/{wnid}/images/{wnid}_{number}.JPEG", label)
            for label, wnid in enumerate(wnids)
            for number in range(self.images[0])
        ]
        x, y = self._pictures(where, read, train)
        x_test, y_test = self._pictures(where, read, self._tested(where, read, wnids))
        return Dataset(
            name=self.name,
            train=official.samples(x, y),
            test=official.samples(x_test, y_test),
            classes=self.classes,
            class_names=_names(where, read, wnids),
        )

    def _wnids(self, where: Path, read: Reader) -> list[str]:
        wnids = sorted(_lines(where, read, "wnids"))
        wrong = [wnid for wnid in wnids if not _WNID.fullmatch(wnid)]
        if wrong or len(set(wnids)) != self.classes or len(wnids) != self.classes:
            raise DataError(
                f"{where}: {_LISTS['wnids']} has {len(wnids)} lines"
                f"{f', of which one is {wrong[0]!r}' if wrong else ''}; expected {self.classes} "
                f"WordNet ids such as n01443537; {official.REMEDY}"
            )
        return wnids

    def _tested(self, where: Path, read: Reader, wnids: list[str]) -> list[tuple[str, int]]:
        """The pictures for testing, and the class of each."""
        labels = {wnid: label for label, wnid in enumerate(wnids)}
        found = {}
        for number, line in enumerate(_lines(where, read, "annotations"), start=1):
            file, wnid = [*line.split("\t"), ""][:2]
            if not _TESTED.fullmatch(file) or wnid not in labels or file in found:
                raise DataError(
                    f"{where}: {_LISTS['annotations']}, line {number} is {line[:60]!r}; expected a "
                    f"file such as val_0.JPEG, once, and a class of wnids.txt; {official.REMEDY}"
                )
            found[file] = labels[wnid]
        if len(found) != (expected := self.classes * self.images[1]):
            raise DataError(
                f"{where}: {_LISTS['annotations']} names {len(found)} pictures; expected "
                f"{expected}; {official.REMEDY}"
            )
        return [(f"{INSIDE}/val/images/{file}", label) for file, label in found.items()]

    def _pictures(
        self, where: Path, read: Reader, files: list[tuple[str, int]]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        x = np.empty((len(files), 3, self.side, self.side), np.uint8)
        for number, (file, _) in enumerate(files):
            try:
                values = picture.decoded(file, BytesIO(read(file)), plain=True)
            except FaultError as fault:
                raise DataError(f"{where}: {fault}; {official.REMEDY}") from fault
            if values.shape[:2] != (self.side, self.side) or values.dtype != np.uint8:
                raise DataError(
                    f"{where}: {file} is {values.dtype} of shape {values.shape}; expected bytes of "
                    f"{self.side}x{self.side} pixels; {official.REMEDY}"
                )
            x[number] = values if values.ndim == 2 else values.transpose(2, 0, 1)
        return x, np.array([label for _, label in files], np.int64)


_LISTS = {
    "wnids": f"{INSIDE}/wnids.txt",
    "words": f"{INSIDE}/words.txt",
    "annotations": f"{INSIDE}/val/val_annotations.txt",
}


def _lines(where: Path, read: Reader, which: str) -> list[str]:
    try:
        return read(_LISTS[which]).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: {_LISTS[which]} is no text ({error}); {official.REMEDY}"
        ) from error


def _names(where: Path, read: Reader, wnids: list[str]) -> tuple[str, ...]:
    """The first word for each class; its WordNet id beside it where two have the same."""
    words = dict(line.split("\t", 1) for line in _lines(where, read, "words") if "\t" in line)
    firsts = [words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    return tuple(
        f"{first} ({wnid})" if firsts.count(first) > 1 else first
        for first, wnid in zip(firsts, wnids, strict=True)
    )


TINY_IMAGENET = TinyImages(
    classes=200,
    images=(500, 50),
    side=64,
    archive=Archive(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        248_100_043,
        "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
    ),
)
