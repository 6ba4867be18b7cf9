"""Segmentation: a class for each pixel."""

from collections.abc import Sequence

from torch import Tensor

from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.tasks.base import Score, Task, kinds_of
from fedkd.tasks.kind import TaskKind
from fedkd.tasks.likelihoods.categorical import CATEGORICAL
from fedkd.tasks.scores.overlap import confusion, dice, miou, pixel_accuracy


class SegmentationOptions(Frozen):
    """What `[task]` says of a segmentation."""

    classes: tuple[str, ...] = ()
    """Names of the classes, in order; numbers from 0 unless given."""


def _task(
    options: SegmentationOptions,
    inputs: tuple[int, ...],
    names: tuple[str, ...],
    scores: Sequence[Score],
) -> Task:
    if len(inputs) != 3:
        raise ConfigError(
            f"task 'segmentation' is for images (C, H, W), and inputs have shape {inputs}: choose "
            "another task"
        )
    if len(names) < 2:
        raise ConfigError(
            "task 'segmentation' needs two classes or more, and the training masks have 0 alone "
            "(255 in a mask of bytes is a pixel that does not count: store 1)"
        )
    if options.classes and len(options.classes) != len(names):
        raise ConfigError(
            f"task.classes names {len(options.classes)} classes ({', '.join(options.classes)}), "
            f"and the training masks have {len(names)}, 0 to {len(names) - 1}: expected as many"
        )
    return Task(
        name="segmentation",
        inputs=inputs,
        answer=(*inputs[1:], len(names)),
        targets="masks",
        names=options.classes or names,
        likelihood=CATEGORICAL,
        scores=tuple(scores),
        offers=kinds_of(inputs) | {"categorical"},
    )


def _probabilities(answers: Tensor) -> Tensor:
    """Logits (N, H, W, C) as a library's metric is shown them: (N, C, H, W)."""
    return answers.softmax(dim=-1).movedim(-1, 1)


KIND = TaskKind(
    about="a class for each pixel",
    targets="masks",
    scores={
        "miou": miou,
        "dice": dice,
        "pixel-accuracy": pixel_accuracy,
        "confusion": confusion,
    },
    default=("miou", "dice", "pixel-accuracy"),
    build=_task,
    shown=_probabilities,
    Options=SegmentationOptions,
)
