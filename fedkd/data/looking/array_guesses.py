"""What arrays and folders of pictures are for: pure guesses from what was found there."""

from collections.abc import Sequence

from fedkd.data.looking.described import NOTHING, ArrayFound, Guess, Pictures, Wished
from fedkd.errors import ConfigError

_CHANNELS = (1, 3, 4)
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
        ConfigError: nothing is told of the pictures, or what their values mean is not known.
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
    if pictures.medical:
        raise ConfigError(
            "what a scanner's values mean is missing: say it by data.window = [low, high], and of "
            "volumes data.slices = true, in an experiment of your own: see docs/data.md"
        )
    return (*found, *_alike(pictures))


def _alike(pictures: Pictures) -> list[Guess]:
    """What makes pictures of unlike sizes or channels one kind of record."""
    sizes = [size for size, *_ in pictures.sizes]
    height, width, channels = sizes[0]
    found = []
    if len({own for *_, own in sizes}) > 1:
        found.append(Guess("data.channels", channels, "some are grey and some in colours"))
    unlike = len({own[:2] for own in sizes}) > 1
    if unlike and pictures.kind == "classes":
        found.append(Guess("data.size", [height, width], "pictures are of unlike sizes"))
    elif unlike or (max(height, width) > 2 * _SIDE and pictures.kind != "classes"):
        why = "pictures are of unlike sizes" if unlike else "pictures are large"
        found.append(Guess("data.tile", _SIDE, f"{why}: cut into squares, each a record"))
    return found


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
