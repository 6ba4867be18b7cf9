"""What a folder of pictures holds, without reading a picture's pixels."""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from PIL import UnidentifiedImageError

from fedkd.data.looking.concerns import copies, of_classes
from fedkd.data.looking.described import Concern, PictureKind, Pictures
from fedkd.data.readers.arrays import FaultError
from fedkd.data.readers.pictures import folder, picture
from fedkd.data.readers.pictures.folder_kinds import (
    BOXES,
    IMAGES,
    MASKS,
    folders,
    has_images,
    holds_classes,
)
from fedkd.data.readers.pictures.form import volume
from fedkd.errors import DataError

_GREY = {"1", "L", "LA", "I", "I;16", "I;16B", "F"}


def look(path: Path) -> tuple[Pictures, list[Concern]]:
    """The pictures of a folder as `readers.folder` has them, and what is odd about them.

    Raises:
        DataError: a picture cannot be read.
    """
    training, testing = folder.parts(path)
    parties = [each for each in _parties(training) if each != testing]
    kind = _kind(parties[0])
    of_party = {party: _files(party, kind) for party in parties}
    files = [file for own in of_party.values() for file in own]
    tests = [] if testing is None else _parties(testing)
    classes = Counter(file.parent.name for file in files) if kind == "classes" else Counter[str]()
    found = Pictures(
        kind=kind,
        sizes=_sizes(files, path),
        classes=tuple(sorted(classes.items())),
        clients=tuple((party.name, len(own)) for party, own in of_party.items())
        if parties != [training]
        else (),
        tests=sum(len(_files(party, kind)) for party in tests),
        medical=any(map(picture.is_medical, files)),
    )
    digests = [sha256(file.read_bytes()).digest() for file in files]
    return found, [*of_classes(found.classes), *copies(digests, "pictures")]


def _kind(party: Path) -> PictureKind:
    if has_images(party):
        if (party / MASKS).is_dir():
            return "masks"
        boxed = (party / BOXES).is_dir() or (party / f"{BOXES}.json").is_file()
        return "boxes" if boxed else "nothing"
    return "classes" if holds_classes(party) else "nothing"


def _parties(path: Path) -> list[Path]:
    """The folder itself, or those of clients in it."""
    if has_images(path) or holds_classes(path):
        return [path]
    inside = [each for each in folders(path) if has_images(each) or holds_classes(each)]
    return inside or [path]


def _files(party: Path, kind: PictureKind) -> Sequence[Path]:
    if kind == "classes":
        return [file for each in folders(party) for file in picture.files(each)]
    return picture.files(party / IMAGES if has_images(party) else party)


def _sizes(files: Sequence[Path], path: Path) -> tuple[tuple[tuple[int, int, int], int, str], ...]:
    of_file = {file: _size(file) for file in files}
    first = {size: file for file, size in reversed(of_file.items())}
    counts = Counter(of_file.values()).most_common()
    return tuple((size, count, str(first[size].relative_to(path))) for size, count in counts)


def _size(file: Path) -> tuple[int, int, int]:
    """Height, width and channels: of a picture from its header, of a scan's first slice."""
    try:
        if picture.is_medical(file):
            height, width, channels = volume(file).shape[-3:]
            return int(height), int(width), int(channels)
        with picture.opened(file) as found:
            return found.height, found.width, 1 if found.mode in _GREY else 3
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, FaultError) as error:
        raise DataError(f"{file}: cannot be read as a picture ({error})") from error
