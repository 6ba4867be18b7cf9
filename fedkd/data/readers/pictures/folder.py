"""A folder of pictures, and what is told of them: by files beside them, or by where they lie.

    FOLDER/[train|test/][CLIENT/]CLASS/a.png                       classes, identities
    FOLDER/[train|test/][CLIENT/]images/a.png and masks/a.png      masks

Other kinds of targets are in `folder_kinds`. Without a `test/`, pictures are held out by a hash of
each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedkd import config
from fedkd.data import targets as forms
from fedkd.data.holdout import held_out
from fedkd.data.parties import called
from fedkd.data.parties import files as clients_files
from fedkd.data.readers.arrays import FaultError
from fedkd.data.readers.pictures import picture, records
from fedkd.data.readers.pictures.folder_kinds import IMAGES, KINDS, FolderKind, Labelled, folders
from fedkd.data.readers.pictures.form import PictureForm
from fedkd.data.targets import Limit
from fedkd.data.types import Dataset, Samples
from fedkd.errors import DataError
from fedkd.tasks import Targets

_TRAIN, _TEST = "train", "test"
_TRAINS = (_TRAIN, "training")
_TESTS = (_TEST, "testing", "val", "valid", "validation")
"""What folders are called, in capitals or not; the first that is there."""
_UNTOLD = FolderKind(
    "pictures", lambda _: True, lambda _, __: ([], ()), cut=lambda nothing, _: nothing
)


def holds_pictures(path: Path) -> bool:
    """Whether a path is a folder for `load`, and none of .npy files."""
    if not path.is_dir() or any(path.glob("*.npy")):
        return False
    return bool(picture.files(path) or folders(path))


def parts(path: Path) -> tuple[Path, Path | None]:
    """The folder for training, perhaps the folder itself, and the one for testing or None."""
    training = _part(path, _TRAINS) or path
    return training, _part(path, (_TEST,) if training == path else _TESTS)


def load(path: Path, source: config.Source, *, seed: int, targets: Targets) -> Dataset:
    """Read a folder of pictures or volumes, as float32 (N, C, H, W) in [0, 1], and their targets.

    Where pictures lie in folders of clients, these are numbered in the order of their names. Bytes
    are divided by 255 and 16 bits by 65535, unless `data.range` says what becomes 0 and 1.

    Args:
        path: of the folder.
        source: the section `[data]`; see `PictureForm`. Of `clients` each is such a folder.
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


def load_rows(
    path: Path, form: PictureForm, *, class_names: Sequence[str], targets: Targets
) -> Samples:
    """Read a party's own folder of pictures, all of which are for training.

    Args:
        path: of the folder, or of one that has it in its `train/`.
        form: how pictures are read.
        class_names: C names; a folder or a box is called by one of them.
        targets: what the parties agreed on.

    Raises:
        DataError: as `load`.
    """
    try:
        if targets not in KINDS:
            raise FaultError(f"is a folder of pictures, and the parties agreed on {targets}")
        kind = KINDS[targets]
        own = forms.FORMS[targets].own
        found, _ = kind.find(
            _parties(_part(path, _TRAINS) or path, kind), None if own else class_names
        )
        read = [records.read(each, form, kind) for party in found for each in party]
        if not read:
            raise FaultError(f"has no picture: expected {kind.expected}")
        return as_samples(read, form, class_names=class_names, targets=targets)
    except FaultError as fault:
        raise DataError(f"{path}: {' '.join(str(fault).split())}") from fault


def as_samples(
    read: Sequence[records.Picture],
    form: PictureForm,
    *,
    class_names: Sequence[str],
    targets: Targets,
) -> Samples:
    """A party's pictures as records with targets that the parties agreed on.

    Raises:
        FaultError: they do not fit each other, or a class is beyond those.
    """
    kind = KINDS[targets]
    x, told = records.of(read, form, kind)
    limit = Limit(len(class_names), "the classes that the parties agreed on")
    if forms.FORMS[targets].own:
        limit = forms.most_classes(targets, len(x))
    y = forms.read(targets, records.stacked(told, kind), len(x), targets, limit)
    return Samples(records.together([x]), y)


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
        form = _form(source)
        x, _ = records.of([records.read(each, form, _UNTOLD) for each in found], form, _UNTOLD)
    except FaultError as fault:
        raise DataError(f"{path}: {' '.join(str(fault).split())}") from fault
    samples = Samples(records.together([x]), torch.zeros(len(x), 0))
    nobody = samples.subset(torch.arange(0))
    return Dataset(path.name, samples, nobody, classes=0, class_names=(), targets="numbers")


def _form(source: config.Source) -> PictureForm:
    return PictureForm.of(source, range=source.range, tile=source.tile)


def _dataset(path: Path, source: config.Source, seed: int, targets: Targets) -> Dataset:
    kind, form = KINDS[targets], _form(source)
    training, tested = parts(path)
    if source.clients:
        parties, tested = clients_files(source.clients), None
        _check_parties(parties, kind)
    else:
        parties = [each for each in _parties(training, kind) if each != tested]
    apart = tested is not None
    found, names = kind.find([*parties, *(_parties(tested, kind) if tested else [])], None)
    read = [[records.read(each, form, kind) for each in party] for party in found]
    train, test = read[: len(parties)], [each for party in read[len(parties) :] for each in party]
    dataset = assembled(
        {str(party): own for party, own in zip(parties, train, strict=True)},
        test if apart else None,
        source,
        names=names,
        targets=targets,
        seed=seed,
    )
    name = called(parties) if source.clients else path.name
    return replace(dataset, name=name, groups=None if parties == [training] else dataset.groups)


def assembled(
    parties: Mapping[str, Sequence[records.Picture]],
    test: Sequence[records.Picture] | None,
    source: config.Source,
    *,
    names: tuple[str, ...],
    targets: Targets,
    seed: int,
) -> Dataset:
    """Pictures that were read as a data set.

    Args:
        parties: the pictures of each natural client, by its name.
        test: those for testing; None holds some out, each by a hash of itself.
        source: the section `[data]`.
        names: of classes; without any, targets alone tell how many there are.
        targets: what they are, one of `KINDS`.
        seed: keys the hashes.

    Raises:
        FaultError: what is missing or does not fit.
    """
    kind, form, apart = KINDS[targets], _form(source), test is not None
    train = [list(own) for own in parties.values()]
    if test is None:
        train, test = _hold_out(train, source.test_share, seed)
    for own, whose in zip([*train, test], [*parties, _TEST], strict=True):
        if not own:
            raise FaultError(
                f"has no picture left for {whose!r}: expected there {kind.expected}, and where "
                f"there is no {_TEST}/ of its own enough pictures for data.test_share = "
                f"{source.test_share:g}"
            )
    found_of = [records.of(own, form, kind) for own in (*train, test)]
    x = records.together([inputs for inputs, _ in found_of])
    y = records.stacked([each for _, told in found_of for each in told], kind)
    told = forms.read(targets, y, len(x), targets, forms.most_classes(targets, len(x)))
    names = names or tuple(map(str, range(forms.outputs(told, targets))))
    *sizes, tests = [len(inputs) for inputs, _ in found_of]
    kept = len(x) - tests
    if apart and not forms.FORMS[targets].own:
        learned = forms.counted(told[:kept], targets, len(names))
        _check_learned(learned, forms.counted(told[kept:], targets, len(names)), names)
    of_clients = torch.arange(len(parties)).repeat_interleave(torch.tensor(sizes))
    return Dataset(
        name=source.name,
        train=Samples(x[:kept], told[:kept]),
        test=Samples(x[kept:], told[kept:]),
        classes=len(names),
        class_names=names,
        groups=of_clients,
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


def _part(path: Path, names: Sequence[str]) -> Path | None:
    """The folder in a folder that has the first of these names, in capitals or not."""
    inside = {each.name.lower(): each for each in folders(path)}
    return next((inside[name] for name in names if name in inside), None)


def _check_parties(parties: Sequence[Path], kind: FolderKind) -> None:
    for party in parties:
        if not party.is_dir() or not kind.is_party(party):
            raise FaultError(f"is followed by {party}, which holds no {kind.expected}")


def _hold_out(
    train: Sequence[Sequence[records.Picture]], share: float, seed: int
) -> tuple[list[list[records.Picture]], list[records.Picture]]:
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
