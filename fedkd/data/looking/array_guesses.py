"""What arrays and folders of pictures are for: pure guesses from what was found there."""

from collections.abc import Sequence

from fedkd.data.looking.described import ArrayFound, Guess, Pictures, Wished
from fedkd.errors import ConfigError

_CHANNELS = (1, 3, 4)
_SIDE = 64
"""Of the squares into which pictures of unlike sizes are cut."""


def of_arrays(arrays: Sequence[ArrayFound], wished: Wished = Wished()) -> tuple[Guess, ...]:  # noqa: B008 - frozen
    """Which task arrays are for, and how their records are laid out.

    Args:
        arrays: those that fedkd knows by name.
        wished: what is known already.

    Raises:
        ConfigError: a value is outside of what floats may be, and what is publicly known of it has
            to be said.
    """
    named = {array.name: array for array in arrays}
    x = next(array for name, array in named.items() if name.split(".")[0] == "x_train")
    task, why = _task(x, named["y_train"])
    if wished.task is not None:
        task, why = wished.task, "as asked for"
    found = [Guess("task.name", task, why)]
    if (layout := _layout(x)) is not None:
        found.append(Guess("data.layout", layout, f"x_train has shape {x.shape}"))
    outside = x.low is not None and x.high is not None and (x.low < 0 or x.high > 1)
    if len(x.shape) > 2 and x.dtype != "uint8" and outside and x.name == "x_train":
        found.append(
            Guess("data.scale", "public", f"values of x_train from {x.low:g} to {x.high:g}")
        )
    return tuple(found)


def of_pictures(pictures: Pictures, wished: Wished = Wished()) -> tuple[Guess, ...]:  # noqa: B008 - frozen
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
        "classes": f"a folder of pictures for each of {len(pictures.classes)} classes",
        "masks": "images/ with masks/ beside it",
        "boxes": "images/ with boxes beside it",
    }[pictures.kind]
    task = wished.task or tasks[pictures.kind]
    found = [Guess("task.name", task, "as asked for" if wished.task else why)]
    sizes = [size for size, _ in pictures.sizes]
    large = max((max(height, width) for height, width, _ in sizes), default=0)
    if len({channels for _, _, channels in sizes}) > 1:
        raise ConfigError(
            "pictures of one kind are missing: some are grey and some have colours; make all alike"
        )
    if len(sizes) > 1 and pictures.kind == "classes":
        (h, w, _), (high, wide, _) = sizes[0], sizes[1]
        raise ConfigError(
            f"pictures of one size are missing: some are {h}x{w} and some {high}x{wide} pixels "
            "(height, width), and one that shows a class cannot be cut; resize them all alike"
        )
    if pictures.kind != "classes" and (len(sizes) > 1 or large > 2 * _SIDE):
        why = "pictures are of unlike sizes" if len(sizes) > 1 else "pictures are large"
        found.append(Guess("data.tile", _SIDE, f"{why}: cut into squares, each a record"))
    return tuple(found)


def _task(x: ArrayFound, y: ArrayFound) -> tuple[str, str]:
    """By the shape and the type of targets."""
    image = len(x.shape) in (3, 4)
    shape = f"y_train has shape {y.shape} and type {y.dtype}"
    if len(y.shape) == 3 and image:
        if y.shape[2] == 5 and not y.whole:
            return "detection", f"{shape}: boxes"
        if y.shape[2] == 3 and not y.whole:
            return "keypoints", f"{shape}: points"
        return "segmentation", f"{shape}: a class for each pixel"
    if len(y.shape) == 2 and y.whole and y.high is not None and y.high <= 1:
        return "multi-label", f"{shape}: 0 or 1 by label"
    if len(y.shape) == 1 and y.whole:
        return "classification", f"{shape}: {y.distinct} classes"
    return "regression", f"{shape}: numbers"


def _layout(x: ArrayFound) -> str | None:
    """What the reader cannot tell from a shape."""
    if len(x.shape) == 4:
        first, last = x.shape[1] in _CHANNELS, x.shape[3] in _CHANNELS
        return "as-stored" if first == last else None
    return "as-stored" if len(x.shape) > 5 else None
