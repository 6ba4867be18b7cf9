"""What a user's own file holds, and which part of it is what: `fedkd data check`, `fedkd init`.

What is found is statistics of data that may be private, for its owner alone. `described` has the
values, `columns` and `*_found` what reads, `*_guesses` pure guesses, `concerns` what is odd.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from fedkd.data.looking import (
    array_guesses,
    arrays_found,
    concerns,
    pictures_found,
    table_guesses,
)
from fedkd.data.looking.columns import described
from fedkd.data.looking.described import (
    NOTHING,
    ArrayFound,
    Column,
    Concern,
    Guess,
    Looked,
    Pictures,
    Wished,
)
from fedkd.data.readers.pictures import folder, picture
from fedkd.data.readers.tables import arrow, files
from fedkd.data.readers.tables.cells import Cells, joined
from fedkd.errors import ConfigError, DataError

__all__ = [
    "ArrayFound",
    "Column",
    "Concern",
    "Guess",
    "Looked",
    "Pictures",
    "Wished",
    "count",
    "look",
    "with_neighbours",
]

_OF_CELLS = ("classification", "regression")
"""Tasks whose label is one cell of each row."""
_FORMS = (
    ".csv, .tsv, .json, .jsonl, .parquet, .npz, or a folder of .npy files, of pictures, or of a "
    "table for each client, or what Hugging Face's save_to_disk writes"
)


def look(path: Path, wished: Wished = NOTHING) -> Looked:
    """What a file or a folder holds, what is odd about it, and which part of it is what.

    Args:
        path: of a table, an .npz file, or a folder of .npy files or of pictures.
        wished: what is known already; what it leaves open is guessed.

    Raises:
        DataError: it is missing, damaged or of no known form.
    """
    wished = with_neighbours(path, wished)
    if path.suffix.lower() == ".npz" or (path.is_dir() and any(path.glob("*.npy"))):
        return _arrays(path, wished)
    if arrow.splits(path):
        return _stored(path, wished)
    if folder.holds_pictures(path):
        return _pictures(path, wished)
    if path.is_dir() and len(_tables_in(path)) > 1:
        return _table(path, wished)
    if path.suffix.lower() in files.ENDINGS and path.suffix.lower() != ".txt":
        return _table(path, wished)
    if not path.exists():
        raise DataError(f"{path}: not found; expected {_FORMS}")
    raise DataError(f"{path}: no known form of data; expected {_FORMS}")


def with_neighbours(path: Path, wished: Wished) -> Wished:
    """What is known, and what the names of files beside the data say.

    `a_public.csv` is public, and so is `a_public` or `proxy` beside a folder; `test.csv` or
    `a_test.csv` beside `train.csv` or `a_train.csv` is for testing; `items.txt` or `a_items.txt` is
    a catalogue.
    """
    if path.name in ("", ".."):  # the folder in which the command is run, or one that it is in
        return wished
    stem, ending = path.stem, path.suffix

    def first(*names: str) -> str | None:
        found = (path.with_name(name) for name in names)
        return next((str(each) for each in found if each.exists() and each != path), None)

    public = wished.public or first(f"{stem}_public{ending}", *(("proxy",) if not ending else ()))
    trained = stem.removesuffix("train")
    test = wished.test
    if test is None and trained != stem and ending:
        test = first(f"{trained}test{ending}")
    items = wished.items or first(f"{stem}_items.txt", "items.txt")
    return replace(wished, public=public, test=test, items=items)


def count(path: Path) -> int:
    """How many records a public file or folder has.

    Raises:
        DataError: it cannot be read.
    """
    if path.is_dir() and not any(path.glob("*.npy")):
        inside = path / "images" if (path / "images").is_dir() else path
        return len(picture.files(inside))
    if path.suffix.lower() == ".txt":
        return len(files.read(path, ["text"]).rows)
    if path.suffix.lower() in files.ENDINGS:
        return len(_cells(path).rows)
    return look(path).records


def _cells(path: Path) -> Cells:
    """All cells of a table, or of those in a folder, one after the other."""
    if arrow.splits(path):
        train, kinds = arrow.parts(path)[0], arrow.features(arrow.parts(path)[0])
        return files.read_all(train, label="text", wanted=lambda name: kinds[name] != "Image")
    if path.is_dir():
        return joined(path, [_cells(each) for each in _tables_in(path)])
    return files.read_all(path, label="text")


def _tables_in(path: Path) -> list[Path]:
    """The tables of clients in a folder: of the ending that most have, in the order of names."""
    found = [each for each in sorted(path.iterdir()) if files.is_table(each.name)]
    endings = Counter(each.suffix for each in found if not each.stem.endswith("_public"))
    return [each for each in found if endings and each.suffix == endings.most_common(1)[0][0]]


def _stored(path: Path, wished: Wished) -> Looked:
    """A data set that Hugging Face's library stored; of pictures no guess is made."""
    looked = replace(_table(path, wished), form="a data set that save_to_disk wrote")
    if not arrow.holds_pictures(path):
        return looked
    why = "which columns are pictures and labels is missing: say data.label, see docs/data.md"
    return replace(looked, guesses=(), missing=why)


def _table(path: Path, wished: Wished) -> Looked:
    table = _cells(path)
    cells = {name: table.cells(name) for name in table.header}
    columns = tuple(described(name, cells[name]) for name in table.header)
    several = path.is_dir() and not arrow.splits(path)
    ending = (_tables_in(path)[0] if several else path).suffix.lower()
    looked = Looked(
        path=str(path),
        form=f"{'tables of clients' if several else 'a table'} ({ending}) of "
        f"{len(columns)} columns",
        records=len(table.rows),
        columns=columns,
    )
    looked = _guessed(looked, partial(table_guesses.guesses, columns, wished))
    if several and looked.guesses:
        clients = list(map(str, _tables_in(path)))
        looked = replace(looked, guesses=table_guesses.by_files(looked.guesses, clients))
    if ending.startswith(".json") and looked.guesses and "data.text.column" not in looked.guessed:
        looked = replace(looked, missing="a .csv or .parquet file is missing: JSON is for texts")
    learned = looked.guessed.get("data.label", ())
    labels = [learned] if isinstance(learned, str) else list(learned)
    if looked.guessed.get("task.name") not in _OF_CELLS:
        labels = []
    return replace(looked, concerns=tuple(concerns.of_columns(columns, cells, labels)))


def _arrays(path: Path, wished: Wished) -> Looked:
    found, odd = arrays_found.look(path)
    looked = Looked(
        path=str(path),
        form="a folder of .npy files" if path.is_dir() else "an .npz file of arrays",
        records=next(array.shape[0] for array in found if array.name == "y_train"),
        arrays=found,
        concerns=tuple(odd),
    )
    return _guessed(looked, partial(array_guesses.of_arrays, found, wished))


def _pictures(path: Path, wished: Wished) -> Looked:
    found, odd = pictures_found.look(path)
    looked = Looked(
        path=str(path),
        form="a folder of pictures",
        records=sum(count for _, count, _ in found.sizes),
        pictures=found,
        concerns=tuple(odd),
    )
    return _guessed(looked, partial(array_guesses.of_pictures, found, wished))


def _guessed(looked: Looked, guess: Callable[[], tuple[Guess, ...]]) -> Looked:
    """With what is guessed, or with why nothing can be."""
    try:
        return replace(looked, guesses=guess())
    except ConfigError as error:
        return replace(looked, missing=str(error))
    except DataError as error:
        raise DataError(f"{looked.path}: {error}") from error
