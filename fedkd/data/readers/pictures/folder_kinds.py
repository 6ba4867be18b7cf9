"""What is told of pictures in a folder, by kind of targets: `KINDS` is the whole list."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TypeVar

import numpy as np

from fedkd.data import targets
from fedkd.data.readers.arrays import Array, FaultError
from fedkd.data.readers.pictures import boxes, form, picture
from fedkd.data.readers.pictures.form import Size
from fedkd.data.readers.pictures.picture import Window
from fedkd.names import choices
from fedkd.tasks import Targets
from fedkd.tasks.likelihoods.categorical import IGNORED

IMAGES, MASKS, BOXES = "images", "masks", "boxes"

_SYSTEMS = (".", "__", "@")
"""How names of folders begin that no person made: of macOS, of a disk station."""
P = TypeVar("P")
Shape = tuple[int, ...]
Names = Sequence[str] | None
Found = tuple[list[list["Labelled"]], tuple[str, ...]]
"""The pictures of each party, and the names of all classes; without names targets alone tell."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """A picture that was found, and what is told of it.

    Attributes:
        file: of the picture.
        target: of this one record, as `FolderKind.stack` takes it.
    """

    file: Path
    target: Array


def _of_any_size(_found: Labelled, _shape: Shape) -> None:
    """Nothing to check."""


def _alike(target: Array, _before: Size, _size: Size) -> Array:
    """What is told of a whole picture, whatever its size."""
    return target


def _in_each(target: Array) -> Iterator[Array]:
    """What is told of a volume, told of each slice."""
    return repeat(target)


@dataclass(frozen=True)
class FolderKind:
    """How pictures with targets of one kind lie in a folder.

    Attributes:
        expected: what the folder of one party holds, in words.
        is_party: whether a folder holds pictures itself, and not folders of clients that do.
        find: (folders of parties, names of the classes that were agreed on) -> `Found`; without
            names, those that the folders have. It raises `FaultError`.
        located: whether places in a picture are told of.
        check: (picture, its height and width, or depth, height and width) -> nothing; raises
            `FaultError` where what is told does not fit it.
        resize: (target, height and width before, and after) -> the target after.
        sliced: target of a volume -> the targets of its slices, or more.
        cut: (target, window) -> what is told of a part of the picture; None: it cannot be cut.
        stack: targets of N records -> one array, as `data.targets.FORMS` reads it.
    """

    expected: str
    is_party: Callable[[Path], bool]
    find: Callable[[Sequence[Path], Names], Found]
    located: bool = False
    check: Callable[[Labelled, Shape], None] = _of_any_size
    resize: Callable[[Array, Size, Size], Array] = _alike
    sliced: Callable[[Array], Iterable[Array]] = _in_each
    cut: Callable[[Array, Window], Array] | None = None
    stack: Callable[[Sequence[Array]], Array] = np.stack


def folders(path: Path) -> list[Path]:
    """The folders in a folder, in the order of their names, but for those that systems make."""
    return sorted(e for e in path.iterdir() if e.is_dir() and not e.name.startswith(_SYSTEMS))


def holds_classes(path: Path) -> bool:
    """Whether a folder has folders with pictures."""
    return any(picture.files(each) for each in folders(path))


def _classes(parties: Sequence[Path], known: Names) -> Found:
    """A class is a folder with pictures, by its name."""
    found = {each.name for party in parties for each in folders(party)}
    names = _named(found, known)
    labelled = [
        [
            Labelled(file, np.array(names.index(each.name)))
            for each in folders(party)
            for file in picture.files(each)
        ]
        for party in parties
    ]
    return labelled, names


def _named(found: Collection[str], known: Names) -> tuple[str, ...]:
    """The names of all classes: those that were agreed on, or those that were found."""
    if known is None:
        return tuple(sorted(found))
    if strange := sorted({*found} - {*known}):
        raise FaultError(
            f"has {strange[0]!r}, which is no class: {choices(strange[0], known, lead='expected ')}"
        )
    return tuple(known)


def has_images(path: Path) -> bool:
    """Whether a folder has pictures in its `images/`."""
    return (path / IMAGES).is_dir()


def _masks(parties: Sequence[Path], _known: Names) -> Found:
    """Of `images/a.jpg` the mask `masks/a.png`, of one channel: the class of each pixel."""
    return [_with_masks(party) for party in parties], ()


def _images(party: Path) -> list[Path]:
    return picture.files(party / IMAGES)


def _with_masks(party: Path) -> list[Labelled]:
    named: dict[str, list[Path]] = {}
    for mask in picture.files(party / MASKS) if (party / MASKS).is_dir() else ():
        named.setdefault(picture.stem(mask), []).append(mask)
    return [
        _with_mask(file, named.get(picture.stem(file), []), party.name) for file in _images(party)
    ]


def _with_mask(file: Path, named: Sequence[Path], party: str) -> Labelled:
    if len(named) != 1:
        raise FaultError(
            f"{IMAGES}/{file.name} has {len(named)} masks in {party}/{MASKS}; "
            f"expected one, {picture.stem(file)}.png, .tif or .nii"
        )
    if picture.is_medical(named[0]):
        values = form.volume(named[0])[..., 0]
        values = values.astype(np.int64) if (values == np.floor(values)).all() else values
    else:
        values = picture.read(named[0], plain=False, turn=False)
    checked = check_mask(f"{MASKS}/{named[0].name}", values, flat=not picture.is_medical(named[0]))
    return Labelled(file, targets.mask(checked))


def check_mask(name: str, values: Array, *, flat: bool = True) -> Array:
    """A mask as stored, unless it is none; a volume's need not be `flat`.

    Raises:
        FaultError: it has several channels, or no integers.
    """
    if (flat and values.ndim != 2) or values.dtype.kind not in "bui":
        raise FaultError(
            f"{name} holds {values.dtype} of shape {values.shape}; expected one channel of "
            "integers, the class of each pixel"
        )
    return values


def _as_large(found: Labelled, shape: Shape) -> None:
    if found.target.shape != shape:
        mask, image = ("x".join(map(str, each)) for each in (found.target.shape, shape))
        raise FaultError(
            f"the mask of {found.file.name} is {mask} pixels; expected {image}, as the image"
        )


def _cut_mask(mask: Array, window: Window) -> Array:
    """A part of a mask (H, W); what an earlier window has, and what is beyond, does not count."""
    part = window.of(mask, beyond=IGNORED)
    part[: window.fresh_top - window.top] = IGNORED
    part[:, : window.fresh_left - window.left] = IGNORED
    return part


def _boxes(parties: Sequence[Path], known: Names) -> Found:
    """Of `images/a.jpg` Pascal VOC's `boxes/a.xml`; or COCO's `boxes.json` of all images."""
    told = [_boxes_of(party) for party in parties]
    names = _named({name for _, own in told for name in own}, known)
    found = [
        [Labelled(file, boxes.targets(own[file.name], names)) for file in _images(party)]
        for party, (own, _) in zip(parties, told, strict=True)
    ]
    return found, names


def _boxes_of(party: Path) -> tuple[Mapping[str, Sequence[boxes.Box]], Collection[str]]:
    """The boxes of each picture by its name, and the names of classes."""
    images = _images(party)
    if (together := party / f"{BOXES}.json").is_file():
        own, names = _parsed(together, boxes.coco)
        missing = [file.name for file in images if file.name not in own]
    else:
        files = {file.name: party / BOXES / f"{file.stem}.xml" for file in images}
        missing = [name for name, file in files.items() if not file.is_file()]
        own = {n: _parsed(file, boxes.voc) for n, file in files.items() if n not in missing}
        names = tuple({box.name for each in own.values() for box in each})
    if missing:
        raise FaultError(
            f"has no boxes of {IMAGES}/{missing[0]} in {party.name}/; expected {BOXES}/"
            f"{Path(missing[0]).stem}.xml as Pascal VOC has, or {BOXES}.json of all pictures as "
            "COCO has; a picture without a box is named there too"
        )
    return own, names


def _parsed(file: Path, parse: Callable[[str], P]) -> P:
    try:
        return parse(file.read_text(encoding="utf-8-sig"))  # some tools begin it with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise FaultError(f"{file.name} cannot be read ({error}); expected text") from error
    except FaultError as fault:
        raise FaultError(f"{file.name} {fault}") from fault


def _in_picture(found: Labelled, shape: Shape) -> None:
    if len(shape) > 2:
        raise FaultError(f"{found.file.name} is a volume; expected a picture, which boxes are in")
    boxes.check(found.file.name, found.target, *shape)


_BY_FOLDER = FolderKind("a folder with pictures for each class", holds_classes, _classes)

KINDS: Mapping[Targets, FolderKind] = {
    "classes": _BY_FOLDER,
    "identities": _BY_FOLDER,
    "masks": FolderKind(
        f"{IMAGES}/ and {MASKS}/, with files of the same names",
        has_images,
        _masks,
        located=True,
        check=_as_large,
        resize=lambda mask, _before, size: form.nearest(mask, size),
        sliced=lambda mask: form.slices(mask, axes=2),
        cut=_cut_mask,
    ),
    "boxes": FolderKind(
        f"{IMAGES}/, and {BOXES}/ with an .xml for each or {BOXES}.json",
        has_images,
        _boxes,
        located=True,
        check=_in_picture,
        resize=boxes.resized,
        cut=boxes.cut,
        stack=boxes.padded,
    ),
}
"""Every kind of targets that a folder of pictures may have."""
