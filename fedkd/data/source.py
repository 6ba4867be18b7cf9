"""What a data set's name leads to: one form of data, one reader."""

from dataclasses import replace
from pathlib import Path

from fedkd import config
from fedkd.data import parties
from fedkd.data.readers import interactions, named, npz, shares
from fedkd.data.readers.named import NAMES
from fedkd.data.readers.pictures import folder
from fedkd.data.readers.pictures import stored as stored_pictures
from fedkd.data.readers.tables import arrow, files, table
from fedkd.data.texts import reader as texts
from fedkd.data.types import Dataset
from fedkd.errors import ConfigError
from fedkd.tasks import Targets


def read(data: config.Source, seed: int, targets: Targets) -> Dataset:
    """The data set that a name or a path leads to, as it is stored.

    Args:
        data: the section `[data]`.
        seed: keys the hashes that hold records out.
        targets: what the data's targets must be.

    Raises:
        DataError: it is missing, corrupt or not in the expected form.
        ConfigError: a key is for data of another form.
    """
    path = parties.files(data.clients)[0] if data.clients else Path(data.name).expanduser()
    known = data.name in NAMES and not data.clients
    if not known and arrow.splits(path):
        return _stored(path, data, seed, targets)
    tabular = files.is_table(path.name)
    pictured = not known and folder.holds_pictures(path)
    stored = path.suffix.lower() == ".npz" or (not known and path.is_dir())
    if data.text is not None:
        _check_texts(data)
        return texts.load(path, data, seed=seed, targets=targets)
    _check_keys(data, tabular=tabular, stored=stored, pictured=pictured)
    if data.interactions is not None and not (tabular and targets == "items"):
        raise ConfigError(
            f"data.interactions is for a table of who took what, and data.name is "
            f"{data.name!r} for a task of {targets}: leave it out, or choose task 'recommendation'"
        )
    if tabular:
        return _table(path, data, seed, targets)
    if pictured:
        return folder.load(path, data, seed=seed, targets=targets)
    if stored:
        return _arrays(path, data, seed, targets)
    return _named(data, seed, targets)


def _table(path: Path, data: config.Source, seed: int, targets: Targets) -> Dataset:
    if targets != "items":
        return table.load(path, data, seed=seed, targets=targets)
    _check_alone(data, "users' clicks")
    return interactions.load(path, data, seed=seed)


def _arrays(path: Path, data: config.Source, seed: int, targets: Targets) -> Dataset:
    if not data.clients:
        return npz.load(path, form=npz.ArrayForm.of(data), kind=targets)
    return shares.load(parties.files(data.clients), data, seed=seed, targets=targets)


def _check_alone(data: config.Source, what: str) -> None:
    """Refuse a file for each client where a reader takes one."""
    if data.clients:
        raise ConfigError(
            f"data.clients is {list(data.clients)}, and {what} are read from one file: say whose "
            "each is by a column, data.client"
        )


def _named(data: config.Source, seed: int, targets: Targets) -> Dataset:
    if data.name in NAMES and targets != (own := named.targets_of(data.name)):
        fit = "classification" if own == "classes" else "keypoints"
        raise ConfigError(
            f"data.name is {data.name!r}, whose targets are {own}, and the task asks for {targets} "
            f"(see 'fedkd tasks'): name a file of your own, or choose task {fit!r}"
        )
    return named.load(data.name, test_share=data.test_share, seed=seed)


def _stored(path: Path, data: config.Source, seed: int, targets: Targets) -> Dataset:
    """A folder that Hugging Face's `save_to_disk` wrote: of texts, of pictures, or of numbers."""
    train, test = arrow.parts(path)
    if data.text is None and arrow.holds_pictures(path):
        _check_keys(data, tabular=False, stored=True, pictured=True)
        _check_alone(data, "pictures that save_to_disk wrote")
        return stored_pictures.load(path, data, seed=seed, targets=targets)
    split = data.model_copy(update={"test": data.test or (test and str(test))})
    if data.text is None:
        _check_keys(data, tabular=True, stored=False, pictured=False)
        dataset = table.load(train, split, seed=seed, targets=targets)
    else:
        _check_texts(data)
        dataset = texts.load(train, split, seed=seed, targets=targets)
    return replace(dataset, name=path.name)


def _check_keys(data: config.Source, *, tabular: bool, stored: bool, pictured: bool) -> None:
    """Refuse keys that are for data of another form."""
    tables = "tables, in .csv, .tsv or .parquet files"
    pictures = "folders of pictures"
    arrays = ".npz files and folders of .npy files"
    for key, fits, form in (
        ("test", tabular, tables),
        ("ignore", tabular, tables),
        ("codes", tabular, tables),
        ("tile", pictured, pictures),
        ("window", pictured, pictures),
        ("size", pictured, pictures),
        ("channels", pictured, pictures),
        ("slices", pictured, pictures),
        ("range", stored, f"{arrays} or of pictures"),
        ("layout", stored and not pictured, arrays),
    ):
        if getattr(data, key) and not fits:
            raise ConfigError(
                f"data.{key} is {getattr(data, key)!r}, and data.name is {data.name!r}: leave it "
                f"out, it is for {form}"
            )


def _check_texts(data: config.Source) -> None:
    """Refuse keys that say nothing of texts."""
    for key in ("ignore", "limits", "range", "layout", "views", "interactions", "tile", "stream"):
        if getattr(data, key):
            raise ConfigError(
                f"data.{key} is {getattr(data, key)!r}, and [data.text] makes texts of "
                f"{data.name!r}: leave one of them out"
            )
