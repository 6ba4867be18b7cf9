"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 60,000 photographs of 32x32 pixels.

The version "for Python" is read, as an archive or unpacked. Its batches are pickles, read without
running them (`pickled`). SHA-256 of the archives are those of Keras' `cifar10.py` and
`cifar100.py`, MD5 of what they pack those of torchvision's `cifar.py`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedkd.data.readers import places
from fedkd.data.readers.arrays import Array, FaultError
from fedkd.data.readers.published import official, pickled
from fedkd.data.readers.published.official import Archive, OfficialFile, Reader
from fedkd.data.types import Dataset, Samples
from fedkd.errors import DataError

PAGE = "www.cs.toronto.edu/~kriz/cifar.html"
_SIDE = 32


@dataclass(frozen=True)
class CifarSet:
    """One of the two sets.

    Attributes:
        name: as `data.name` gives it; also the folder's name.
        class_names: by label.
        labels: the key of the labels in a batch.
        train: the batches for training, in order.
        test: the batches for testing.
        images: how many a batch for training and one for testing have.
        archive: what packs them all.
    """

    name: str
    class_names: tuple[str, ...]
    labels: bytes
    train: tuple[OfficialFile, ...]
    test: tuple[OfficialFile, ...]
    images: tuple[int, int]
    archive: Archive

    @property
    def wanted(self) -> places.Wanted:
        """The batches, or the archive."""
        batches = tuple(part.file for part in (*self.train, *self.test))
        forms = (batches, (self.archive.file,))
        return places.Wanted(self.name, self.name, forms, (self.archive.remote,), PAGE)

    def load(self, folder: Path) -> Dataset:
        """Images (N, 3, 32, 32) in [0, 1], in the order of the batches.

        Raises:
            DataError: a file is damaged, or not the official one.
        """
        batches = (*self.train, *self.test)
        if places.form_in(self.wanted, folder) == (self.archive.file,):
            files = [part.file for part in batches]
            with official.packed(self.archive.official, folder, files) as read:
                return self._dataset(folder / self.archive.file, read)
        with official.unpacked(folder, batches) as read:
            return self._dataset(folder, read)

    def _dataset(self, where: Path, read: Reader) -> Dataset:
        train, test = (
            self._samples(where, read, parts, images)
            for parts, images in zip((self.train, self.test), self.images, strict=True)
        )
        return Dataset(
            name=self.name,
            train=train,
            test=test,
            classes=len(self.class_names),
            class_names=self.class_names,
        )

    def _samples(
        self, where: Path, read: Reader, parts: tuple[OfficialFile, ...], images: int
    ) -> Samples:
        batches = [self._batch(f"{where}: {part.file}", read(part.file), images) for part in parts]
        return official.samples(
            np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])
        )

    def _batch(self, where: str, content: bytes, images: int) -> tuple[NDArray[np.uint8], Array]:
        """One batch: uint8 (N, 3, 32, 32), which is how rows of 3,072 bytes lie, and labels."""
        try:
            held = pickled.read(content)
        except FaultError as fault:
            raise DataError(f"{where} {fault}; {official.REMEDY}") from fault
        for key in (b"data", self.labels):
            if key not in held:
                raise DataError(f"{where} has no {key.decode()!r}; {official.REMEDY}")
        x, y = held[b"data"], held[self.labels]
        expected = (images, 3 * _SIDE * _SIDE)
        if not isinstance(x, np.ndarray) or x.shape != expected:
            shape = x.shape if isinstance(x, np.ndarray) else type(x).__name__
            raise DataError(f"{where}: data are {shape}; expected {expected}; {official.REMEDY}")
        if not isinstance(y, list) or not all(type(label) is int for label in y):
            raise DataError(f"{where}: labels are no list of integers; {official.REMEDY}")
        labels = np.array(y, dtype=np.int64)
        official.checked_labels(where, labels, images, len(self.class_names))
        return x.reshape(images, 3, _SIDE, _SIDE), labels


CIFAR_10 = CifarSet(
    name="cifar-10",
    class_names=(
        "airplane", "automobile", "bird", "cat", "deer",
        "dog", "frog", "horse", "ship", "truck",
    ),
    labels=b"labels",
    train=(
        OfficialFile("cifar-10-batches-py/data_batch_1", "c99cafc152244af753f735de768cd75f"),
        OfficialFile("cifar-10-batches-py/data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
        OfficialFile("cifar-10-batches-py/data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
        OfficialFile("cifar-10-batches-py/data_batch_4", "634d18415352ddfa80567beed471001a"),
        OfficialFile("cifar-10-batches-py/data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
    ),
    test=(OfficialFile("cifar-10-batches-py/test_batch", "40351d587109b95175f43aff81a1287e"),),
    images=(10_000, 10_000),
    archive=Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        170_498_071,
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
)  # fmt: skip

CIFAR_100 = CifarSet(
    name="cifar-100",
    class_names=(
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
        "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
        "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
        "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
        "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard",
        "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse",
        "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck",
        "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray",
        "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail",
        "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
        "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle",
        "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
    ),
    labels=b"fine_labels",
    train=(OfficialFile("cifar-100-python/train", "16019d7e3df5f24257cddd939b257f8d"),),
    test=(OfficialFile("cifar-100-python/test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),),
    images=(50_000, 10_000),
    archive=Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        169_001_437,
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    ),
)  # fmt: skip
