"""The data sets that fedkd knows by name, and how each is read."""

from dataclasses import replace
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from fedkd.data.readers import figures, heart, npz, places
from fedkd.data.readers.places import SAMPLE, ImageSource
from fedkd.data.readers.published.cifar import CIFAR_10, CIFAR_100
from fedkd.data.readers.published.emnist import SPLITS
from fedkd.data.readers.published.svhn import SVHN
from fedkd.data.readers.published.tiny_imagenet import TINY_IMAGENET
from fedkd.data.readers.sources import FASHION_CLASSES, FASHION_MNIST, MNIST
from fedkd.data.types import Dataset
from fedkd.errors import DataError
from fedkd.names import choices
from fedkd.tasks import Targets

_KNOWN: tuple[ImageSource, ...] = (
    FASHION_MNIST,
    MNIST,
    *SPLITS,
    CIFAR_10,
    CIFAR_100,
    SVHN,
    TINY_IMAGENET,
)
_SOURCES = {source.name: source for source in _KNOWN}
_HOSPITALS = places.Wanted(heart.NAME, heart.FOLDER, (heart.FILES,), page=heart.PAGE)
NAMES = (SAMPLE, *_SOURCES, heart.NAME, figures.NAME)


def load(name: str, *, test_share: float, seed: int) -> Dataset:
    """The data set called `name`, one of `NAMES`; fetched into the cache if it is nowhere here.

    Args:
        name: of the data set.
        test_share: held out for testing where the data set brings no test set, in (0, 1).
        seed: the experiment's seed, for that draw, and for what is drawn altogether.

    Raises:
        DataError: the name is unknown, a file is corrupt, or the files are nowhere to be had.
    """
    if name == SAMPLE:
        return _sample()
    if name == heart.NAME:
        return heart.load(places.obtain(_HOSPITALS), test_share=test_share, seed=seed)
    if name == figures.NAME:
        return figures.draw(seed)
    return read(_source(name))


def targets_of(name: str) -> Targets:
    """What the targets of the data set called `name` are."""
    return "points" if name == figures.NAME else "classes"


def read(source: ImageSource) -> Dataset:
    """The data set that `source` describes; images are float32 (N, C, H, W) in [0, 1].

    Raises:
        DataError: a file is corrupt, or the files are nowhere to be had.
    """
    return _read(source, obtain(source))


def locations(name: str) -> list[tuple[str, bool]]:
    """Where `name` is looked for, in order, and whether all its files are there.

    Raises:
        DataError: the name is unknown.
    """
    if name == SAMPLE:
        return [(str(_sample_file()), _sample_file().is_file())]
    if name == figures.NAME:
        return [("drawn when it is asked for", True)]
    return places.locations(_HOSPITALS if name == heart.NAME else _source(name).wanted)


def fetched(name: str) -> bool:
    """Whether `name` is fetched where it is not found."""
    return name in _SOURCES


def obtain(source: ImageSource) -> Path:
    """The first folder that holds all of `source`; failing that the cache, after fetching.

    Raises:
        DataError: the files are nowhere here and could not be fetched, or came corrupt.
    """
    return places.obtain(source.wanted)


def _source(name: str) -> ImageSource:
    if name not in _SOURCES:
        raise DataError(
            f"data.name is {name!r}, which is no data set: "
            f"{choices(name, NAMES, lead='expected one of ')}, or the path of an .npz or .csv "
            "file, or of a folder of .npy files or of pictures"
        )
    return _SOURCES[name]


# A comparison of many runs reads the same files again and again; two sets, because the public set
# may come from another. Large: 220 MB each in float32.
@lru_cache(maxsize=2)
def _read(source: ImageSource, folder: Path) -> Dataset:
    return source.load(folder)


def _sample_file() -> Traversable:
    return resources.files("fedkd.data") / "sample" / "fashion_mnist.npz"


@lru_cache(maxsize=1)
def _sample() -> Dataset:
    with resources.as_file(_sample_file()) as path:
        return replace(npz.load(path), name=SAMPLE, class_names=FASHION_CLASSES)
