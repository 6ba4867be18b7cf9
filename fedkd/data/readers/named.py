"""The data sets that fedkd knows by name: where they are looked for, and how they are read."""

import http.client
import os
from dataclasses import replace
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import platformdirs
import torch

from fedkd.data.readers import fetch, figures, heart, idx, npz
from fedkd.data.readers.sources import FASHION_CLASSES, FASHION_MNIST, MNIST, PublishedSet
from fedkd.data.types import Dataset, Samples
from fedkd.errors import DataError
from fedkd.names import choices
from fedkd.tasks import Targets

SAMPLE = "fashion-mnist-sample"

_SOURCES = {source.name: source for source in (FASHION_MNIST, MNIST)}
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
        return heart.load(_hospitals(), test_share=test_share, seed=seed)
    if name == figures.NAME:
        return figures.draw(seed)
    return read(_source(name))


def targets_of(name: str) -> Targets:
    """What the targets of the data set called `name` are."""
    return "points" if name == figures.NAME else "classes"


def read(source: PublishedSet) -> Dataset:
    """The data set that `source` describes; images are float32 (N, 1, H, W) in [0, 1].

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
    if name == heart.NAME:
        return [(str(at), _complete(heart.FILES, at)) for at in _folders(heart.FOLDER)]
    files = _source(name).files
    return [(str(folder), _complete(files, folder)) for folder in _folders(name)]


def fetched(name: str) -> bool:
    """Whether `name` is fetched where it is not found."""
    return name in _SOURCES


def obtain(source: PublishedSet) -> Path:
    """The first folder that holds all of `source`; failing that the cache, after fetching.

    Raises:
        DataError: the files are nowhere here and could not be fetched, or came corrupt.
    """
    folders = _folders(source.name)
    for folder in folders:
        if _complete(source.files, folder):
            return folder
    cache = folders[-1]
    try:
        for part in source.parts:
            if not (cache / part.file).is_file():
                fetch.download(f"{source.url}/{part.file}", part, cache)
    except (OSError, http.client.HTTPException) as error:
        files = ", ".join(part.file for part in source.parts)
        raise DataError(
            f"data set {source.name!r} is in none of {', '.join(map(str, folders))} and could not "
            f"be fetched from {source.url} ({error}); put {files} into {cache} or "
            f"$FEDKD_DATA/{source.name}, or use data.name = {SAMPLE!r}, which needs no network"
        ) from error
    return cache


def _source(name: str) -> PublishedSet:
    if name not in _SOURCES:
        raise DataError(
            f"data.name is {name!r}, which is no data set: "
            f"{choices(name, NAMES, lead='expected one of ')}, or the path of an .npz or .csv "
            "file, or of a folder of .npy files or of pictures"
        )
    return _SOURCES[name]


def _folders(name: str) -> list[Path]:
    """Where `name` may lie: the user's folder, the system's, and last the cache."""
    user = os.environ.get("FEDKD_DATA")
    system = platformdirs.site_data_dir("fedkd", multipath=True).split(os.pathsep)
    parents = [
        *([user] if user else []),
        "/usr/share/datasets",
        "/usr/local/share/datasets",
        *system,
        platformdirs.user_cache_dir("fedkd"),
    ]
    return [Path(parent).expanduser() / name for parent in parents]


def _complete(files: tuple[str, ...], folder: Path) -> bool:
    return all((folder / file).is_file() for file in files)


def _hospitals() -> Path:
    """The first folder that holds the four hospitals' files; nobody fetches them."""
    folders = _folders(heart.FOLDER)
    for folder in folders:
        if _complete(heart.FILES, folder):
            return folder
    raise DataError(
        f"data set {heart.NAME!r} is in none of {', '.join(map(str, folders))} and fedkd does not "
        f"fetch it: get it from {heart.PAGE} and put {', '.join(heart.FILES)} into {folders[-1]} "
        f"or $FEDKD_DATA/{heart.FOLDER}"
    )


# A comparison of many runs reads the same files again and again; two sets, because the public set
# may come from another. Large: 220 MB each in float32.
@lru_cache(maxsize=2)
def _read(source: PublishedSet, folder: Path) -> Dataset:
    images, labels, test_images, test_labels = (
        torch.from_numpy(idx.read(folder / part.file, part)) for part in source.parts
    )
    return Dataset(
        name=source.name,
        train=Samples(images[:, None].float() / 255, labels.long()),
        test=Samples(test_images[:, None].float() / 255, test_labels.long()),
        classes=len(source.class_names),
        class_names=source.class_names,
    )


def _sample_file() -> Traversable:
    return resources.files("fedkd.data") / "sample" / "fashion_mnist.npz"


@lru_cache(maxsize=1)
def _sample() -> Dataset:
    with resources.as_file(_sample_file()) as path:
        return replace(npz.load(path), name=SAMPLE, class_names=FASHION_CLASSES)
