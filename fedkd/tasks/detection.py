"""Detection: boxes around the things in an image."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.tasks.base import Ask, Score, Task, kinds_of
from fedkd.tasks.boxes import grid, together
from fedkd.tasks.kind import TaskKind
from fedkd.tasks.likelihoods.centre_point import centre_point
from fedkd.tasks.scores.boxes import average_precision_of_boxes

_OFFERS: tuple[Ask, ...] = ("boxes",)
Together = Literal["certain", "mean", "boxes"]
"""What several models' answers come to; see `boxes.together`."""


class DetectionOptions(Frozen):
    """What `[task]` says of a detection."""

    stride: int = Field(default=4, ge=1)
    """The side of a cell of the answers' grid, in pixels; it divides both sides of an image."""
    together: Together = "certain"
    """What several models' answers come to: a mean in each cell in which the sure weigh more, the
    mean of all numbers, or the weighted fusion of their boxes."""


def _task(
    options: DetectionOptions,
    inputs: tuple[int, ...],
    names: tuple[str, ...],
    scores: Sequence[Score],
) -> Task:
    stride = options.stride
    if len(inputs) != 3:
        raise ConfigError(
            f"task.name is 'detection', and records have shape {inputs}: expected images (C, H, W)"
        )
    if any(side % stride for side in inputs[1:]):
        raise ConfigError(
            f"task.stride is {stride}, and images are {inputs[2]} pixels wide and {inputs[1]} high"
            ": expected a number that divides both"
        )

    mixes: dict[Together, Callable[[Tensor], Tensor] | None] = {
        "certain": together.certain,
        "mean": None,
        "boxes": partial(together.fused, stride=stride),
    }

    def of_boxes(score: Score) -> Score:
        found = partial(grid.found, stride=stride)
        return replace(score, tally=lambda answers, targets: score.tally(found(answers), targets))

    return Task(
        name="detection",
        inputs=inputs,
        answer=(inputs[1] // stride, inputs[2] // stride, len(names) + grid.SHAPE),
        targets="boxes",
        names=names,
        likelihood=centre_point(len(names), stride, mixes[options.together]),
        scores=tuple(map(of_boxes, scores)),
        offers=kinds_of(inputs).union(_OFFERS),
    )


def _shown(answers: Tensor) -> Tensor:
    """Probabilities of centres, and shapes as they are."""
    heat, shapes = answers[..., : -grid.SHAPE], answers[..., -grid.SHAPE :]
    return torch.cat([heat.sigmoid(), shapes], dim=-1)


KIND = TaskKind(
    about="boxes around the things in an image",
    targets="boxes",
    scores={
        "ap50": average_precision_of_boxes("ap50", 0.5),
        "ap40": average_precision_of_boxes("ap40", 0.4),
        "ap75": average_precision_of_boxes("ap75", 0.75),
        "ap": average_precision_of_boxes("ap", *(n / 100 for n in range(50, 100, 5))),
    },
    default=("ap50", "ap"),
    build=_task,
    shown=_shown,
    Options=DetectionOptions,
)
