"""The published data sets that fedkd knows: their files, checksums and classes."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from fedkd.data.readers import idx, places
from fedkd.data.readers.fetch import Remote
from fedkd.data.readers.idx import IdxFile
from fedkd.data.types import Dataset, Samples

_ROOM = 1 << 20
"""How many bytes a packed file may be larger than twice its content."""

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@dataclass(frozen=True)
class PublishedSet:
    """A published data set of grey images in four idx.gz files.

    Attributes:
        name: as `data.name` gives it; also the folder's name.
        url: the folder on the web that holds the files, without a trailing slash.
        class_names: by label.
        parts: training images and labels, test images and labels.
    """

    name: str
    url: str
    class_names: tuple[str, ...]
    parts: tuple[IdxFile, IdxFile, IdxFile, IdxFile]

    @property
    def wanted(self) -> places.Wanted:
        """The four files."""
        files = tuple(part.file for part in self.parts)
        remotes = tuple(
            Remote(
                f"{self.url}/{part.file}",
                part.file,
                2 * part.size + _ROOM,
                partial(idx.read, part=part),
            )
            for part in self.parts
        )
        return places.Wanted(self.name, self.name, (files,), remotes)

    def load(self, folder: Path) -> Dataset:
        """Images (N, 1, H, W) in [0, 1].

        Raises:
            DataError: a file is corrupt.
        """
        images, labels, test_images, test_labels = (
            torch.from_numpy(idx.read(folder / part.file, part)) for part in self.parts
        )
        return Dataset(
            name=self.name,
            train=Samples(images[:, None].float() / 255, labels.long()),
            test=Samples(test_images[:, None].float() / 255, test_labels.long()),
            classes=len(self.class_names),
            class_names=self.class_names,
        )


MNIST = PublishedSet(
    name="mnist",
    url="https://ossci-datasets.s3.amazonaws.com/mnist",
    class_names=tuple(str(digit) for digit in range(10)),
    parts=(
        IdxFile(
            "train-images-idx3-ubyte.gz",
            (60_000, 28, 28),
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        IdxFile(
            "train-labels-idx1-ubyte.gz",
            (60_000,),
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        IdxFile(
            "t10k-images-idx3-ubyte.gz",
            (10_000, 28, 28),
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte.gz",
            (10_000,),
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
)

FASHION_MNIST = PublishedSet(
    name="fashion-mnist",
    url="https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    class_names=FASHION_CLASSES,
    parts=(
        IdxFile(
            "train-images-idx3-ubyte.gz",
            (60_000, 28, 28),
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        IdxFile(
            "train-labels-idx1-ubyte.gz",
            (60_000,),
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        IdxFile(
            "t10k-images-idx3-ubyte.gz",
            (10_000, 28, 28),
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte.gz",
            (10_000,),
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
)
