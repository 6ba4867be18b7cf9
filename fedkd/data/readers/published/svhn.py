"""SVHN, cropped digits (Netzer et al. 2011): house numbers of Street View, 32x32 pixels.

SHA-256 are those of TensorFlow Datasets' `svhn_cropped.txt`. The 531,131 easier images of
`extra_32x32.mat` are left out, as published figures on 73,257 + 26,032 leave them out.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedkd.data.readers import places
from fedkd.data.readers.arrays import FaultError
from fedkd.data.readers.published import matlab, official
from fedkd.data.readers.published.official import Archive, Reader
from fedkd.data.types import Dataset, Samples
from fedkd.errors import DataError

PAGE = "ufldl.stanford.edu/housenumbers"
_SIDE = 32


@dataclass(frozen=True)
class HouseNumbers:
    """The set, in two MATLAB files.

    Attributes:
        parts: the files for training and for testing.
        images: how many each has.
        name: as `data.name` gives it; also the folder's name.
    """

    parts: tuple[Archive, Archive]
    images: tuple[int, int]
    name: str = "svhn"

    @property
    def wanted(self) -> places.Wanted:
        """The two files."""
        files = tuple(part.file for part in self.parts)
        remotes = tuple(part.remote for part in self.parts)
        return places.Wanted(self.name, self.name, (files,), remotes, PAGE)

    def load(self, folder: Path) -> Dataset:
        """Images (N, 3, 32, 32) in [0, 1]; classes are the digits, 0 in place of the files' 10.

        Raises:
            DataError: a file is damaged, or not the official one.
        """
        files = [part.official for part in self.parts]
        with official.unpacked(folder, files) as read:
            train, test = (
                _samples(folder, read, part.file, images)
                for part, images in zip(self.parts, self.images, strict=True)
            )
        names = tuple(str(digit) for digit in range(10))
        return Dataset(name=self.name, train=train, test=test, classes=10, class_names=names)


def _samples(folder: Path, read: Reader, file: str, images: int) -> Samples:
    where = f"{folder / file}"
    try:
        held = matlab.read(read(file), ("X", "y"))
        labels = matlab.integers("labels", held["y"])
    except FaultError as fault:
        raise DataError(f"{where} {fault}; {official.REMEDY}") from fault
    x, expected = held["X"], (_SIDE, _SIDE, 3, images)
    if x.shape != expected or x.dtype != np.uint8:
        raise DataError(
            f"{where}: X is {x.dtype} of shape {x.shape}; expected uint8 of {expected}; "
            f"{official.REMEDY}"
        )
    zero = labels == 10
    official.checked_labels(where, labels - 1, images, 10)  # 1 to 10, of which 10 is a zero
    return official.samples(
        np.ascontiguousarray(x.transpose(3, 2, 0, 1)), np.where(zero, 0, labels)
    )


SVHN = HouseNumbers(
    parts=(
        Archive(
            "http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
            182_040_794,
            "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        ),
        Archive(
            "http://ufldl.stanford.edu/housenumbers/test_32x32.mat",
            64_275_384,
            "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        ),
    ),
    images=(73_257, 26_032),
)
