"""Parquet files, and data sets as Hugging Face's library stores them: tables of typed columns.

A stored data set is a folder with `state.json`, which names its files, and `dataset_info.json`,
which says what columns hold; one of several splits has a folder for each, and `dataset_dict.json`.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fedkd import optional
from fedkd.errors import DataError

_TESTS = ("test", "validation", "valid", "val")
_INDEX = "__index_level_"
"""What pandas calls a column of row numbers, which is no column of the table."""


def records(path: Path, wanted: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
    """Each record of a Parquet file or of a split of a stored data set.

    Args:
        path: of the file, or of the split's folder.
        wanted: whether a column is read; of others there is None.

    Raises:
        DataError: it is missing, damaged or something else.
    """
    table, names = (_stored if path.is_dir() else _parquet)(path)
    columns = [column for column in table.column_names if not column.startswith(_INDEX)]
    nothing = dict.fromkeys(columns)
    for batch in table.select([column for column in columns if wanted(column)]).to_batches():
        for record in batch.to_pylist():
            named = {
                column: labels[record[column]]
                for column, labels in names.items()
                if (record.get(column) if record.get(column) is not None else -1) >= 0
            }
            yield nothing | record | named


def parts(path: Path) -> tuple[Path, Path | None]:
    """The split for training, and the one for testing if there is one.

    Raises:
        DataError: it is no stored data set, or has none for training.
    """
    found = splits(path)
    if not {"train", ""} & {*found}:
        has = f"has the splits {', '.join(found)}" if found else "holds no data set"
        raise DataError(f"{path}: {has}; expected 'train' among those that save_to_disk wrote")
    tests = (found[name] for name in _TESTS if name in found)
    return found.get("train") or found[""], next(tests, None)


def holds_pictures(path: Path) -> bool:
    """Whether a stored data set has a column of pictures."""
    return "Image" in features(parts(path)[0]).values()


def features(path: Path) -> dict[str, str]:
    """What the columns of a split hold, such as `Image`, `ClassLabel` or `Value`, by name."""
    found = _said(path, "dataset_info.json").get("features") or {}
    return {
        column: str(each.get("_type")) if isinstance(each, dict) else "List"
        for column, each in found.items()
    }


def class_names(path: Path) -> dict[str, list[str]]:
    """What the numbers of each column of classes of a split are called."""
    found = _said(path, "dataset_info.json").get("features") or {}
    return {c: f["names"] for c, f in found.items() if features(path)[c] == "ClassLabel"}


def splits(path: Path) -> dict[str, Path]:
    """The folders of a stored data set's splits, by name; of one that has none, itself as `""`.

    A folder that is no such data set has no splits.

    Raises:
        DataError: what says which splits there are is damaged.
    """
    if (path / "state.json").is_file():
        return {"": path}
    if not (path / "dataset_dict.json").is_file():
        return {}
    return {name: _inside(path, name) for name in _listed(path, "dataset_dict.json", "splits")}


def _said(folder: Path, file: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / file}: {error}; expected what save_to_disk writes") from error
    if not isinstance(found, dict):
        raise DataError(f"{folder / file}: expected an object, as save_to_disk writes")
    return found


def _listed(folder: Path, file: str, key: str) -> list[Any]:
    found = _said(folder, file).get(key)
    if not isinstance(found, list):
        raise DataError(f"{folder / file}: {key} is no list; expected what save_to_disk writes")
    return found


def _inside(folder: Path, name: object) -> Path:
    """A file or folder of a data set, which may be anybody's and name what is none of its own."""
    if not isinstance(name, str) or name in ("", ".", "..") or {"/", "\\", ":"} & {*name}:
        raise DataError(
            f"{folder}: names {name!r} as a part of itself; expected what lies in it, as "
            "save_to_disk writes"
        )
    return folder / name


def _parquet(path: Path) -> tuple[Any, dict[str, list[str]]]:
    library = optional.load("pyarrow.parquet", extra="parquet")
    try:
        return library.read_table(path), {}
    except Exception as error:  # whatever the library says of a file that is none
        raise DataError(f"{path}: {error}; expected a Parquet file") from error


def _stored(path: Path) -> tuple[Any, dict[str, list[str]]]:
    """The table of a split, and of columns of classes what each number is called."""
    path, _ = parts(path)
    library = optional.load("pyarrow", extra="parquet")
    listed = _listed(path, "state.json", "_data_files")
    names = (each.get("filename") if isinstance(each, dict) else each for each in listed)
    files = [_inside(path, name) for name in names]
    try:
        read = []
        for file in files:
            with library.memory_map(str(file)) as source, library.ipc.open_stream(source) as stream:
                read.append(stream.read_all())
        table = library.concat_tables(read)
    except Exception as error:  # whatever the library says of a file that is none
        raise DataError(f"{path}: {error}; expected a data set that save_to_disk wrote") from error
    return table, class_names(path)
