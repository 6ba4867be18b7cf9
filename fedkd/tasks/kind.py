"""A kind of task, of which a configuration and a data set make one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedkd.config import Frozen
from fedkd.tasks.base import Score, Targets, Task


@dataclass(frozen=True)
class TaskKind:
    """What all tasks of one name have in common.

    Attributes:
        about: what it is for, in one line.
        targets: what a data set's targets must be.
        scores: by name, how many classes, labels or numbers there are -> the score.
        default: the scores where `[task] scores` names none; the first is the headline.
        build: (options, inputs' shape, names, scores) -> the task.
        shown: what a metric of a library is shown of answers (N, *A): probabilities or numbers.
        strata: targets (N, *T) -> int64 (N,) from 0, the groups by whose shares clients may differ;
            None: only the iid and the natural partition suit.
        Options: the other keys of `[task]`.
        of_texts: whether its records can be nothing but texts.
    """

    about: str
    targets: Targets
    scores: Mapping[str, Callable[[int], Score]]
    default: tuple[str, ...]
    build: Callable[..., Task]
    shown: Callable[[Tensor], Tensor]
    strata: Callable[[Tensor], Tensor] | None = None
    Options: type[Frozen] = field(default=Frozen)
    of_texts: bool = False
