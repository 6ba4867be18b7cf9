"""Keypoints: where in an image K points are, such as a figure's joints."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from pydantic import Field, PositiveInt

from fedkd.config import Frozen
from fedkd.errors import ConfigError
from fedkd.names import unknown
from fedkd.tasks.base import Score, Task, kinds_of
from fedkd.tasks.kind import TaskKind
from fedkd.tasks.likelihoods.heatmaps import grid, heatmaps
from fedkd.tasks.scores.points import Ruler, nme, pck


class KeypointsOptions(Frozen):
    """What `[task]` says of keypoints."""

    stride: PositiveInt = 4
    """Pixels to a cell of the heatmaps, along each axis."""
    sigma: float = Field(default=1.0, gt=0)
    """How wide a point is drawn in its heatmap: a standard deviation, in cells."""
    within: float = Field(default=0.2, gt=0)
    """`pck`: how far off a point may be, as a share of the record's length."""
    reference: tuple[str, str] | None = None
    """The two points, by name, whose distance is a record's length, such as both eyes; unless given
    it is the longer side of the box around its visible points."""


_Scores = dict[str, Callable[[int], Score]]


def _scores(options: KeypointsOptions, ruler: Ruler) -> _Scores:
    """By name, of points decided; what a user's own are given too."""
    return {
        "pck": lambda points: pck(points, ruler, within=options.within),
        "nme": lambda points: nme(points, ruler),
    }


def _ruler(options: KeypointsOptions, image: tuple[int, int], names: Sequence[str]) -> Ruler:
    if options.reference is None:
        return Ruler(image)
    for name in options.reference:
        if name not in names:
            raise ConfigError(f"task.reference: {unknown('point', name, names)}")
    first, second = (list(names).index(name) for name in options.reference)
    if first == second:
        raise ConfigError(
            f"task.reference names {options.reference[0]!r} twice: expected two points, whose "
            "distance is a length"
        )
    return Ruler(image, (first, second))


def _task(
    options: KeypointsOptions,
    inputs: tuple[int, ...],
    names: tuple[str, ...],
    scores: Sequence[Score],
) -> Task:
    if len(inputs) != 3:
        raise ConfigError(
            f"task 'keypoints' finds points in images (C, H, W), and inputs have shape {inputs}: "
            "name a data set of images, or choose task 'regression'"
        )
    image = inputs[1], inputs[2]
    likelihood = heatmaps(image, stride=options.stride, sigma=options.sigma)
    own = _scores(options, _ruler(options, image, names))

    def of_points(score: Score) -> Score:
        made = own[score.name](len(names)) if score.name in own else score
        return replace(
            made, tally=lambda answers, targets: made.tally(likelihood.decide(answers), targets)
        )

    return Task(
        name="keypoints",
        inputs=inputs,
        answer=(*grid(image, options.stride), len(names)),
        targets="points",
        names=names,
        likelihood=likelihood,
        scores=tuple(map(of_points, scores)),
        offers=kinds_of(inputs),
    )


_DEFAULTS = KeypointsOptions()

KIND = TaskKind(
    about="points in an image, such as joints, each by a heatmap",
    targets="points",
    scores=_scores(_DEFAULTS, Ruler((1, 1))),
    default=("pck", "nme"),
    build=_task,
    shown=lambda answers: answers,
    Options=KeypointsOptions,
)
