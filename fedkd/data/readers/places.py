"""Where the files of a data set that has a name may lie, and how they come there."""

import http.client
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import platformdirs

from fedkd.data.readers import fetch
from fedkd.data.types import Dataset
from fedkd.errors import DataError

SAMPLE = "fashion-mnist-sample"


@dataclass(frozen=True)
class Wanted:
    """The files of a data set.

    Attributes:
        name: as `data.name` gives it.
        folder: what the folder of its files is called.
        forms: groups of files, by their paths in that folder; any one group is all of the data.
        remotes: what is fetched where no group is found; nothing, if nobody may or can fetch it.
        page: where a person gets it, without https://.
    """

    name: str
    folder: str
    forms: tuple[tuple[str, ...], ...]
    remotes: tuple[fetch.Remote, ...] = ()
    page: str = ""


class ImageSource(Protocol):
    """A published data set: what its files are, and how they are read."""

    def __hash__(self) -> int:
        """Of its description, by which what was read is kept."""
        ...

    @property
    def name(self) -> str:
        """As `data.name` gives it."""
        ...

    @property
    def wanted(self) -> Wanted:
        """The files."""
        ...

    def load(self, folder: Path) -> Dataset:
        """Read the first group of files that `folder` holds.

        Raises:
            DataError: a file is damaged, or is not the one that was published.
        """
        ...


def folders(name: str) -> list[Path]:
    """Where a folder called `name` may lie: at the user's, the system's, and last in the cache."""
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


def form_in(wanted: Wanted, folder: Path) -> tuple[str, ...] | None:
    """The first group of files of which a folder has all."""
    return next((form for form in wanted.forms if not _lacking(form, folder)), None)


def locations(wanted: Wanted) -> list[tuple[str, bool]]:
    """Where a data set is looked for, in order, and whether it is there."""
    looked = folders(wanted.folder)
    return [(str(folder), form_in(wanted, folder) is not None) for folder in looked]


def obtain(wanted: Wanted) -> Path:
    """The first folder that holds a data set; failing that the cache, after fetching.

    Raises:
        DataError: the files are nowhere here and were not fetched, or came corrupt.
    """
    looked = folders(wanted.folder)
    for folder in looked:
        if form_in(wanted, folder) is not None:
            return folder
    cache, remote = looked[-1], None
    if not wanted.remotes:
        raise DataError(
            f"{_nowhere(wanted, looked)} and fedkd does not fetch it: get it from {wanted.page} "
            f"and {_put(wanted, cache)}"
        )
    try:
        for remote in wanted.remotes:
            if not (cache / remote.file).is_file():
                fetch.download(remote, cache)
    except (OSError, http.client.HTTPException) as error:
        at = "" if remote is None else remote.url.rpartition("/")[0]
        raise DataError(
            f"{_nowhere(wanted, looked)} and could not be fetched from {at} ({error}); "
            f"{_put(wanted, cache)}, or use data.name = {SAMPLE!r}, which needs no network"
        ) from error
    return cache


def _lacking(form: tuple[str, ...], folder: Path) -> list[str]:
    return [file for file in form if not (folder / file).is_file()]


def _nowhere(wanted: Wanted, looked: list[Path]) -> str:
    """That a data set is not here; with what is missing where somebody put only a part of it."""
    text = f"data set {wanted.name!r} is in none of {', '.join(map(str, looked))}"
    for folder in looked:
        for form in wanted.forms:
            if len(lacking := _lacking(form, folder)) < len(form):
                return f"{text} ({folder} lacks {', '.join(lacking)})"
    return text


def _put(wanted: Wanted, cache: Path) -> str:
    forms = ", or ".join(", ".join(form) for form in wanted.forms)
    return f"put {forms} into {cache} or $FEDKD_DATA/{wanted.folder}"
