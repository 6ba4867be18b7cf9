"""A folder of pictures, and what is told of them: by files beside them, or by where they lie.

    FOLDER/[train|test/][CLIENT/]CLASS/a.png                       classes, identities
    FOLDER/[train|test/][CLIENT/]images/a.png and masks/a.png      masks

Other kinds of targets are in `folder_kinds`. Without a `test/`, pictures are held out by a hash of
each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedkd import config
from fedkd.data import targets as forms
from fedkd.data.holdout import held_out
from fedkd.data.readers.arrays import Array, FaultError
from fedkd.data.readers.pictures import picture
from fedkd.data.readers.pictures.folder_kinds import IMAGES, KINDS, FolderKind, Labelled, folders
from fedkd.data.types import Dataset, Samples
from fedkd.errors import DataError
from fedkd.tasks import Targets

_TRAIN, _TEST = "train", "test"
_UNTOLD = FolderKind("pictures", lambda _: True, lambda _: ([], ()), cut=lambda nothing, _: nothing)


@dataclass(frozen=True, eq=False)
class _Picture:
    """A picture in memory.

    Attributes:
        found: where it was found, and what is told of it.
        values: float32 (H, W, C) in [0, 1].
    """

    found: Labelled
    values: Array


def holds_pictures(path: Path) -> bool:
    """Whether a path is a folder for `load`, and none of .npy files."""
    if not path.is_dir() or any(path.glob("*.npy")):
        return False
    return bool(picture.files(path) or folders(path))


def load(path: Path, source: config.Source, *, seed: int, targets: Targets) -> Dataset:
    """Read a folder of pictures, as float32 (N, C, H, W) in [0, 1], and their targets.

    Where pictures lie in folders of clients, these are numbered in the order of their names. Bytes
    are divided by 255 and 16 bits by 65535, unless `data.range` says what becomes 0 and 1.

    Args:
        path: of the folder.
        source: the section `[data]`; its `tile` cuts pictures into squares, each a record.
        seed: the experiment's; keys the hashes that hold pictures out, with all their squares.
        targets: what they are, one of `KINDS`.

    Raises:
        DataError: names the folder and what is missing, damaged or does not fit.
    """
    try:
        if targets not in KINDS:
            raise FaultError(
                f"is a folder of pictures, which may tell of {', '.join(KINDS)}, and the task asks "
                f"for {targets}: give an .npz file"
            )
        return _dataset(path, source, seed, targets)
    except FaultError as fault:
        raise DataError(f"{path}: {' '.join(str(fault).split())}") from fault


def unlabelled(path: Path, source: config.Source) -> Dataset:
    """Read the pictures of a folder or of its `images/`, of which nothing is told: a proxy set.

    Raises:
        DataError: as `load`.
    """
    inside = path / IMAGES if (path / IMAGES).is_dir() else path
    try:
        none = np.zeros(0, np.float32)
        found = [Labelled(file, none) for file in picture.files(inside)]
        if not found:
            raise FaultError(f"has no picture, neither itself nor in {IMAGES}/")
        x, _ = _records([_read(each, source, _UNTOLD) for each in found], source, _UNTOLD)
    except FaultError as fault:
        raise DataError(f"{path}: {' '.join(str(fault).split())}") from fault
    samples = Samples(_together([x]), torch.zeros(len(x), 0))
    nobody = samples.subset(torch.arange(0))
    return Dataset(path.name, samples, nobody, classes=0, class_names=(), targets="numbers")


def _dataset(path: Path, source: config.Source, seed: int, targets: Targets) -> Dataset:
    kind = KINDS[targets]
    training = path / _TRAIN if (path / _TRAIN).is_dir() else path
    apart = (path / _TEST).is_dir()
    parties = [each for each in _parties(training, kind) if each != path / _TEST]
    testing = _parties(path / _TEST, kind) if apart else []
    found, names = kind.find([*parties, *testing])
    read = [[_read(each, source, kind) for each in party] for party in found]
    train, test = read[: len(parties)], [each for party in read[len(parties) :] for each in party]
    if not apart:
        train, test = _hold_out(train, source.test_share, seed)
    for own, whose in zip([*train, test], [*(each.name for each in parties), _TEST], strict=True):
        if not own:
            raise FaultError(
                f"has no picture left for {whose!r}: expected there {kind.expected}, and where "
                f"there is no {_TEST}/ of its own enough pictures for data.test_share = "
                f"{source.test_share:g}"
            )
    records = [_records(own, source, kind) for own in (*train, test)]
    x = _together([inputs for inputs, _ in records])
    y = kind.stack([each for _, told in records for each in told])
    told = forms.read(targets, y, len(x), targets, forms.most_classes(targets, len(x)))
    names = names or tuple(map(str, range(forms.outputs(told, targets))))
    *sizes, tests = [len(inputs) for inputs, _ in records]
    kept = len(x) - tests
    if apart and not forms.FORMS[targets].own:
        learned = forms.counted(told[:kept], targets, len(names))
        _check_learned(learned, forms.counted(told[kept:], targets, len(names)), names)
    clients = torch.arange(len(parties)).repeat_interleave(torch.tensor(sizes))
    return Dataset(
        name=path.name,
        train=Samples(x[:kept], told[:kept]),
        test=Samples(x[kept:], told[kept:]),
        classes=len(names),
        class_names=names,
        groups=None if parties == [training] else clients,
        targets=targets,
    )


def _check_learned(train: Tensor, test: Tensor, names: Sequence[str]) -> None:
    """Refuse classes of a test set that nobody can have learned, by how many there are of each."""
    pairs = zip(names, ((train == 0) & (test > 0)).tolist(), strict=True)
    if unlearned := [name for name, alone in pairs if alone]:
        raise FaultError(
            f"has {', '.join(unlearned)} in {_TEST}/ alone; expected classes that can be learned: "
            "give pictures of them for training too, or drop them"
        )


def _parties(path: Path, kind: FolderKind) -> list[Path]:
    """The folder itself, or those of clients in it."""
    if kind.is_party(path):
        return [path]
    parties = [each for each in folders(path) if kind.is_party(each)]
    if not parties:
        raise FaultError(f"has in {path.name}/ neither {kind.expected}, nor clients' folders of it")
    return parties


def _read(found: Labelled, source: config.Source, kind: FolderKind) -> _Picture:
    values = picture.read(found.file, plain=True)
    kind.check(found, *values.shape[:2])
    return _Picture(found, picture.as_inputs(found.file.name, values, source.range))


def _hold_out(
    train: Sequence[Sequence[_Picture]], share: float, seed: int
) -> tuple[list[list[_Picture]], list[_Picture]]:
    """Each picture by itself, whole, so that no square of it is on the other side."""
    kept, test = [], []
    for own in train:
        held = [
            bool(
                held_out(torch.from_numpy(each.values)[None], [""], share, seed=seed, purpose=_TEST)
            )
            for each in own
        ]
        kept.append([each for each, out in zip(own, held, strict=True) if not out])
        test += [each for each, out in zip(own, held, strict=True) if out]
    return kept, test


def _records(
    read: Sequence[_Picture], source: config.Source, kind: FolderKind
) -> tuple[list[Array], list[Array]]:
    """Inputs (H, W, C) of one client or the test set, and what is told of each."""
    if source.tile is None:
        return [each.values for each in read], [each.found.target for each in read]
    if kind.cut is None:
        raise FaultError(f"cannot be cut by data.tile = {source.tile}: leave it out for this task")
    inputs, told = [], []
    for each in read:
        height, width = each.values.shape[:2]
        for window in picture.windows(height, width, source.tile):
            inputs.append(window.of(each.values, beyond=0.0))
            told.append(kind.cut(each.found.target, window))
    return inputs, told


def _together(parts: Sequence[Sequence[Array]]) -> Tensor:
    """All inputs as (N, C, H, W)."""
    every = [each for part in parts for each in part]
    shapes = sorted({each.shape for each in every})
    if len(shapes) > 1:
        (height, width, channels), (high, wide, other) = shapes[0], shapes[-1]
        remedy = "data.tile = 64 cuts all into squares" if channels == other else "make them alike"
        raise FaultError(
            f"has pictures of {height}x{width}x{channels} and of {high}x{wide}x{other} (height, "
            f"width, channels); expected one size: {remedy}"
        )
    return torch.from_numpy(np.stack(every).transpose(0, 3, 1, 2).copy())
