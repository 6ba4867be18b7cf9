"""What is told of pictures in a folder, by kind of targets: `KINDS` is the whole list."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from fedkd.data import targets
from fedkd.data.readers.arrays import Array, FaultError
from fedkd.data.readers.pictures import boxes, picture
from fedkd.data.readers.pictures.picture import Window
from fedkd.tasks import Targets
from fedkd.tasks.likelihoods.categorical import IGNORED

IMAGES, MASKS, BOXES = "images", "masks", "boxes"

P = TypeVar("P")
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


def _of_any_size(_found: Labelled, _height: int, _width: int) -> None:
    """Nothing to check."""


@dataclass(frozen=True)
class FolderKind:
    """How pictures with targets of one kind lie in a folder.

    Attributes:
        expected: what the folder of one party holds, in words.
        is_party: whether a folder holds pictures itself, and not folders of clients that do.
        find: folders of parties -> `Found`; raises `FaultError`.
        check: (picture, height, width) -> nothing; raises `FaultError` where what is told does not
            fit a picture of this size.
        cut: (target, window) -> what is told of a part of the picture; None: it cannot be cut.
        stack: targets of N records -> one array, as `data.targets.FORMS` reads it.
    """

    expected: str
    is_party: Callable[[Path], bool]
    find: Callable[[Sequence[Path]], Found]
    check: Callable[[Labelled, int, int], None] = _of_any_size
    cut: Callable[[Array, Window], Array] | None = None
    stack: Callable[[Sequence[Array]], Array] = np.stack


def folders(path: Path) -> list[Path]:
    """The folders in a folder, in the order of their names."""
    return sorted(each for each in path.iterdir() if each.is_dir() and each.name[0] != ".")


def _holds_classes(path: Path) -> bool:
    return any(picture.files(each) for each in folders(path))


def _classes(parties: Sequence[Path]) -> Found:
    """A class is a folder with pictures, by its name."""
    names = sorted({each.name for party in parties for each in folders(party)})
    found = [
        [
            Labelled(file, np.array(names.index(each.name)))
            for each in folders(party)
            for file in picture.files(each)
        ]
        for party in parties
    ]
    return found, tuple(names)


def has_images(path: Path) -> bool:
    """Whether a folder has pictures in its `images/`."""
    return (path / IMAGES).is_dir()


def _masks(parties: Sequence[Path]) -> Found:
    """Of `images/a.jpg` the mask `masks/a.png`, of one channel: the class of each pixel."""
    return [_with_masks(party) for party in parties], ()


def _images(party: Path) -> list[Path]:
    return picture.files(party / IMAGES)


def _with_masks(party: Path) -> list[Labelled]:
    named: dict[str, list[Path]] = {}
    for mask in picture.files(party / MASKS) if (party / MASKS).is_dir() else ():
        named.setdefault(mask.stem, []).append(mask)
    return [_with_mask(file, named.get(file.stem, []), party.name) for file in _images(party)]


def _with_mask(file: Path, named: Sequence[Path], party: str) -> Labelled:
    if len(named) != 1:
        raise FaultError(
            f"{IMAGES}/{file.name} has {len(named)} masks in {party}/{MASKS}; "
            f"expected one, {file.stem}.png or .tif"
        )
    values = picture.read(named[0], plain=False)
    if values.ndim != 2 or values.dtype.kind not in "bui":
        raise FaultError(
            f"{MASKS}/{named[0].name} holds {values.dtype} of shape {values.shape}; expected one "
            "channel of integers, the class of each pixel"
        )
    return Labelled(file, targets.mask(values))


def _as_large(found: Labelled, height: int, width: int) -> None:
    if found.target.shape != (height, width):
        high, wide = found.target.shape
        raise FaultError(
            f"the mask of {found.file.name} is {high}x{wide} pixels; expected {height}x{width}, as "
            "the image"
        )


def _cut_mask(mask: Array, window: Window) -> Array:
    """A part of a mask (H, W); what an earlier window has, and what is beyond, does not count."""
    part = window.of(mask, beyond=IGNORED)
    part[: window.fresh_top - window.top] = IGNORED
    part[:, : window.fresh_left - window.left] = IGNORED
    return part


def _boxes(parties: Sequence[Path]) -> Found:
    """Of `images/a.jpg` Pascal VOC's `boxes/a.xml`; or COCO's `boxes.json` of all images."""
    told = [_boxes_of(party) for party in parties]
    names = sorted({name for _, own in told for name in own})
    found = [
        [Labelled(file, boxes.targets(own[file.name], names)) for file in _images(party)]
        for party, (own, _) in zip(parties, told, strict=True)
    ]
    return found, tuple(names)


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


def _in_picture(found: Labelled, height: int, width: int) -> None:
    boxes.check(found.file.name, found.target, height, width)


_BY_FOLDER = FolderKind("a folder with pictures for each class", _holds_classes, _classes)

KINDS: Mapping[Targets, FolderKind] = {
    "classes": _BY_FOLDER,
    "identities": _BY_FOLDER,
    "masks": FolderKind(
        f"{IMAGES}/ and {MASKS}/, with files of the same names",
        has_images,
        _masks,
        _as_large,
        _cut_mask,
    ),
    "boxes": FolderKind(
        f"{IMAGES}/, and {BOXES}/ with an .xml for each or {BOXES}.json",
        has_images,
        _boxes,
        _in_picture,
        boxes.cut,
        boxes.padded,
    ),
}
"""Every kind of targets that a folder of pictures may have."""
