"""What a student is asked about, as it takes it: arrays, pictures, rows of a table, histories.

Values are as the data of the run had them. What the run keeps says how they became inputs: the
shape, the columns, their scale and `[data]`; the data itself is not looked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedkd.config import Layout
from fedkd.data import scaling
from fedkd.data.readers import arrays, heart, npz
from fedkd.data.readers.arrays import FaultError, Stored
from fedkd.data.readers.pictures import picture as pictures
from fedkd.data.readers.pictures.form import PictureForm, resized, slices
from fedkd.data.readers.tables import files, table
from fedkd.data.readers.tables.cells import Cells, Point
from fedkd.data.readers.tables.columns import may_be_made_of
from fedkd.errors import DataError, UsageError
from fedkd.names import choices
from fedkd.rows import whole
from fedkd.runs.student import FinishedStudent

_AS_STORED: Layout = "as-stored"
_ARRAYS = (".npy", ".npz")
_WHERE = Path("the rows")
"""In place of a file's name, where rows come from Python."""


@dataclass(frozen=True)
class AskedRecords:
    """Records that a student is asked about.

    Attributes:
        x: float32 (N, *shape), as the student takes them.
        names: N of them: a picture's file, or a record's place among those given.
    """

    x: Tensor
    names: tuple[str | int, ...]


def read(student: FinishedStudent, given: Any) -> AskedRecords:
    """Records as a student takes them.

    Args:
        student: takes records of one tensor, and no texts.
        given: an array or a tensor of one record or of several; a mapping from columns to values,
            or several, or a data frame; names of items that a user has taken, a list for each
            user; or files: pictures, folders of them, tables, `.npy` and `.npz`.

    Raises:
        UsageError: it is nothing of this, or nothing that this student takes.
        DataError: a file is missing or damaged, or a value does not fit.
    """
    if isinstance(given, np.ndarray | Tensor):
        return _numbered(_of_array(student, given))
    if hasattr(given, "to_dict") and hasattr(given, "columns"):  # a data frame of pandas
        given = given.to_dict("records")
    if isinstance(given, str | Path | Mapping):
        given = [given]
    if not isinstance(given, Sequence):
        given = np.asarray(given)
        return _numbered(_of_array(student, given))
    if not given:
        raise UsageError("nothing was given to ask the student about: expected at least one record")
    if all(isinstance(each, str | Path) for each in given):
        return _together([_of_file(student, Path(each).expanduser()) for each in given])
    if all(isinstance(each, Mapping) for each in given):
        return _numbered(_of_rows(student, given))
    if student.task.targets == "items" and all(_are_names(each) for each in given):
        return _numbered(_of_items(student, given))
    return _numbered(_of_array(student, np.asarray(given)))


def _numbered(x: Tensor) -> AskedRecords:
    return AskedRecords(x, tuple(range(len(x))))


def _together(parts: Sequence[AskedRecords]) -> AskedRecords:
    if len(parts) == 1:
        return parts[0]
    names = [name for part in parts for name in part.names]
    numbered = not any(isinstance(name, str) for name in names)
    return AskedRecords(
        torch.cat([part.x for part in parts]), tuple(range(len(names)) if numbered else names)
    )


def _are_names(value: object) -> bool:
    return isinstance(value, Sequence) and all(isinstance(each, str) for each in value)


def _of_array(student: FinishedStudent, given: NDArray[Any] | Tensor) -> Tensor:
    """(N, *shape) of values as they were stored; images may lack channels, or have them last."""
    array = given.detach().cpu().numpy() if isinstance(given, Tensor) else given
    if array.dtype.kind not in "fiub":
        raise UsageError(
            f"an array of {array.dtype} was given: expected numbers, of shape {student.shape} or "
            f"(N, {', '.join(map(str, student.shape))})"
        )
    return scaled(student, _stored(student, _with_axes(student.shape, array)))


def _with_axes(shape: tuple[int, ...], array: NDArray[Any]) -> NDArray[Any]:
    """An array of one record or several as (N, *shape), channels first."""
    for whole_shape in (array.shape, (1, *array.shape)):
        found = array.reshape(whole_shape)
        if found.shape[1:] == shape:
            return found
        if len(shape) > 2 and found.shape[1:] == (*shape[1:], shape[0]):
            return np.moveaxis(found, -1, 1)
        if len(shape) > 2 and shape[0] == 1 and found.shape[1:] == shape[1:]:
            return found[:, None]
    raise UsageError(
        f"an array of shape {array.shape} was given, and the student takes records of shape "
        f"{shape}: expected one record or (N, {', '.join(map(str, shape))})"
    )


def _stored(student: FinishedStudent, array: NDArray[Any]) -> Tensor:
    """Values as numbers: of a table as they are, of all else as the reader of arrays has them."""
    if student.features:
        return torch.from_numpy(array.astype(np.float32))
    source = student.source
    if source.window is not None:  # of pictures: what is outside is cut off there too
        array = array.clip(*source.window)
    limits = source.window or source.range
    form = npz.ArrayForm(_AS_STORED, limits, npz.ArrayForm.of(source).unbounded)
    try:
        return whole(npz.records("the array", Stored(array), form))
    except FaultError as fault:
        raise DataError(str(fault)) from fault


def scaled(student: FinishedStudent, x: Tensor) -> Tensor:
    """Records (N, *shape) on the scale of the run's."""
    return whole(scaling.apply(x, student.features, student.scale))


def _of_file(student: FinishedStudent, file: Path) -> AskedRecords:
    ending = file.suffix.lower()
    if file.is_dir():
        inside = pictures.files(file)
        if not inside:
            raise DataError(f"{file}: no picture in this folder; expected {_endings()}")
        return _together([_of_picture(student, each) for each in inside])
    if pictures.is_picture(file):
        return _of_picture(student, file)
    if ending in files.TABLES:
        _check_columns(student, str(file))
        of = (name for each in student.features for name in may_be_made_of(each))
        read = files.read_all(
            file,
            label=student.features[0],
            wanted={*student.features, *of}.__contains__,
            decimal=student.source.decimal,
        )
        return _numbered(_of_cells(student, read))
    if ending in _ARRAYS:
        return _numbered(_of_array(student, _array(file)))
    raise UsageError(
        f"{file}: the student takes no texts; expected a folder of pictures, or a file that ends "
        f"in {_endings()}"
    )


def _endings() -> str:
    return ", ".join((*pictures.SUFFIXES, *files.TABLES, *_ARRAYS))


def picture(student: FinishedStudent, file: Path) -> list[NDArray[np.float32]]:
    """A picture or a volume as float32 (H, W, C) or (D, H, W, C) in [0, 1], or its slices.

    Of a run whose pictures were cut into squares it is of whatever size.

    Raises:
        DataError: it is missing or damaged, or has other channels than the student takes.
        ConfigError: what reads it is not installed.
    """
    source = student.source
    form = PictureForm.of(source, range=source.range, tile=source.tile)
    try:
        read = form.read(file, turn=True)
    except FaultError as fault:
        raise DataError(f"{file}: {fault}") from fault
    if read.shape[-1] != student.shape[0]:
        raise DataError(
            f"{file} has {read.shape[-1]} channels; expected {student.shape[0]}, as the pictures "
            "that the student learned from"
        )
    if form.size is not None and read.shape[-3:-1] != form.size:
        read = resized(read, form.size)
    return list(slices(read, axes=3)) if form.slices else [read]


def _of_picture(student: FinishedStudent, file: Path) -> AskedRecords:
    if len(student.shape) not in (3, 4):
        raise UsageError(
            f"{file} is a picture, and the student takes records of shape {student.shape}"
        )
    parts = []
    for part in picture(student, file):
        found, wanted = part.shape[:-1], student.shape[1:]
        if found != wanted:
            raise DataError(
                f"{file} has {_by(found)} pixels; expected {_by(wanted)}, as the pictures that the "
                "student learned from: resize it as these were"
            )
        parts.append(torch.from_numpy(np.moveaxis(part, -1, 0).copy()))
    return AskedRecords(scaled(student, torch.stack(parts)), (str(file),) * len(parts))


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _array(file: Path) -> NDArray[Any]:
    """The one array of a file, or the one called `x`."""
    try:
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            keys = list(found)
            if "x" not in keys and len(keys) != 1:
                raise DataError(f"{file} holds {', '.join(keys)}; expected one array, or one x")
            return np.asarray(found["x" if "x" in keys else keys[0]])
    except (OSError, *arrays.UNREADABLE) as error:
        raise DataError(f"{file} cannot be read as arrays of numpy ({error})") from error


def _check_columns(student: FinishedStudent, what: str) -> None:
    if not student.features:
        raise UsageError(
            f"{what}: the student takes records of shape {student.shape} without named columns: "
            "give an array"
        )


def _of_rows(student: FinishedStudent, rows: Sequence[Mapping[str, Any]]) -> Tensor:
    _check_columns(student, str(_WHERE))
    header = list(dict.fromkeys(str(name) for row in rows for name in row))
    point = student.source.decimal
    cells = [[_cell(row.get(name), point) for name in header] for row in rows]
    return _of_cells(student, Cells(_WHERE, header, cells, list(range(len(rows))), point))


def _cell(value: Any, point: Point) -> str:
    """A value as the run's CSV file has it; NaN is a word for what is missing."""
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    text = str(value).strip()
    if isinstance(value, float | np.floating):
        return text.removesuffix(".0").replace(".", point)
    return text


def _of_cells(student: FinishedStudent, rows: Cells) -> Tensor:
    if student.source.name == heart.NAME:
        return _of_patients(student, rows)
    table.require(rows, student.features, why="which the student takes")
    return scaled(student, torch.from_numpy(rows.numbers(student.features)))


def _of_patients(student: FinishedStudent, rows: Cells) -> Tensor:
    """Of tests by name, which are on the scale of their reader."""
    seen, x = [heart.FEATURES.index(column) for column in student.features], []
    for number, cells in enumerate(rows.rows):
        try:
            x.append(heart.encoded(dict(zip(rows.header, cells, strict=True))))
        except ValueError as error:
            raise rows.fault(number, f": {error}") from error
    return torch.tensor(x)[:, seen]


def _of_items(student: FinishedStudent, users: Sequence[Sequence[str]]) -> Tensor:
    """1 for each item that a user has taken: (N, I)."""
    places = {name: place for place, name in enumerate(student.task.names)}
    x = torch.zeros(len(users), len(places))
    for row, items in zip(x, users, strict=True):
        for item in items:
            if item not in places:
                near = choices(item, places, listed=())
                raise DataError(f"item {item!r} is none of {len(places)} that it knows: {near}")
            row[places[item]] = 1
    return x
