"""What arrays and folders of pictures are for: pure guesses from what was found there."""

from collections.abc import Sequence

from fedkd.data.looking.described import NOTHING, ArrayFound, Guess, Pictures, Wished
from fedkd.errors import ConfigError

_CHANNELS = (1, 3, 4)
_COLOURS = {1: "grey", 3: "in colours"}
_SIDE = 64
"""Of the squares into which pictures of unlike sizes are cut."""


def of_arrays(arrays: Sequence[ArrayFound], wished: Wished = NOTHING) -> tuple[Guess, ...]:
    """Which task arrays are for, and how their records are laid out.

    Args:
        arrays: those that fedkd knows by name.
        wished: what is known already.
    """
    named = {array.name: array for array in arrays}
    x = next(array for name, array in named.items() if name.split(".")[0] == "x_train")
    task, why = _task(x, named["y_train"])
    if wished.task is not None:
        task, why = wished.task, "as asked for"
    found = [Guess("task.name", task, why)]
    if (layout := _layout(x)) is not None:
        found.append(Guess("data.layout", layout, f"a record has shape {x.shape[1:]}"))
    outside = x.low is not None and x.high is not None and (x.low < 0 or x.high > 1)
    if len(x.shape) > 2 and x.dtype != "uint8" and outside and x.name == "x_train":
        found.append(
            Guess("data.scale", "public", "values are outside of [0, 1]: by the proxy set's")
        )
    return tuple(found)


def of_pictures(pictures: Pictures, wished: Wished = NOTHING) -> tuple[Guess, ...]:
    """Which task a folder of pictures is for, and whether they are cut.

    Raises:
        ConfigError: nothing is told of the pictures, or they have unlike sizes and cannot be cut.
    """
    tasks = {"classes": "classification", "masks": "segmentation", "boxes": "detection"}
    if pictures.kind == "nothing":
        raise ConfigError(
            "what the pictures show is missing: expected a folder of pictures for each class, or "
            "images/ with masks/, boxes/ or boxes.json beside it"
        )
    why = {
        "classes": "a folder of pictures for each class",
        "masks": "images/ with masks/ beside it",
        "boxes": "images/ with boxes beside it",
    }[pictures.kind]
    task = wished.task or tasks[pictures.kind]
    found = [Guess("task.name", task, "as asked for" if wished.task else why)]
    sizes = [size for size, *_ in pictures.sizes]
    large = max((max(height, width) for height, width, _ in sizes), default=0)
    if len({channels for *_, channels in sizes}) > 1:
        alike, other = _unlike(pictures, 2)
        raise ConfigError(
            f"pictures of one kind are missing: {alike} is {_COLOURS[sizes[0][2]]} and {other} is "
            "not; make them alike"
        )
    if len(sizes) > 1 and pictures.kind == "classes":
        (h, w, _), (high, wide, _) = sizes[0], sizes[1]
        alike, other = _unlike(pictures, 0)
        raise ConfigError(
            f"pictures of one size are missing: {alike} has {h}x{w} and {other} {high}x{wide} "
            "pixels (height, width), and one that shows a class cannot be cut; make them alike"
        )
    if pictures.kind != "classes" and (len(sizes) > 1 or large > 2 * _SIDE):
        why = "pictures are of unlike sizes" if len(sizes) > 1 else "pictures are large"
        found.append(Guess("data.tile", _SIDE, f"{why}: cut into squares, each a record"))
    return tuple(found)


def _unlike(pictures: Pictures, axis: int) -> tuple[str, str]:
    """The first picture of the commonest size, and the first that differs."""
    (size, _, alike), *others = pictures.sizes
    differs = (file for other, _, file in others if other != size and other[axis:] != size[axis:])
    return alike, next(differs)


def _task(x: ArrayFound, y: ArrayFound) -> tuple[str, str]:
    """By the shape and the type of targets."""
    image = len(x.shape) in (3, 4)
    shape = f"targets have shape {y.shape[1:]} and type {y.dtype}"
    if len(y.shape) == 3 and image:
        if y.shape[2] == 5 and not y.whole:
            return "detection", f"{shape}: boxes"
        if y.shape[2] == 3 and not y.whole:
            return "keypoints", f"{shape}: points"
        return "segmentation", f"{shape}: a class for each pixel"
    if len(y.shape) == 2 and y.whole and y.high is not None and y.high <= 1:
        return "multi-label", f"{shape}: 0 or 1 by label"
    if len(y.shape) == 1 and y.whole:
        return "classification", f"{shape}: classes"
    return "regression", f"{shape}: numbers"


def _layout(x: ArrayFound) -> str | None:
    """What the reader cannot tell from a shape."""
    if len(x.shape) == 4:
        first, last = x.shape[1] in _CHANNELS, x.shape[3] in _CHANNELS
        return "as-stored" if first == last else None
    return "as-stored" if len(x.shape) > 5 else None
