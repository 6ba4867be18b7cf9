"""What a way to learn is: how the student learns, and what that needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from fedkd.config import Frozen
from fedkd.data.types import Dataset
from fedkd.learning.ways.base import Splits, StudentRun
from fedkd.tasks import Ask, Task

Remake = Callable[
    [nn.Module, tuple[nn.Module, ...], Any, tuple[int, ...], torch.Generator], nn.Module
]
Share = Callable[[Dataset, int, Any, torch.Generator], Splits]


@dataclass(frozen=True)
class Way:
    """A way to learn.

    Attributes:
        paper: where it comes from.
        learn: a lesson and the way's parameters to the finished student, in evaluation mode. All
            training goes through `run.stage`.
        Params: its parameters, the keys of `[way]`.
        teachers: the fewest and the most `[[teachers]]`.
        forms: whether `[[knowledge]]` says what is passed on: it must, may, or must not.
        remake: what the way makes of a fresh student before it learns: the student, the teachers,
            the way's parameters, the shape of one input, and a generator for new weights. The
            teachers need not have learned yet: only then the shape of the result counts.
        share: who has what of the data set, where not all have all: the data set, how many teachers
            there are, the way's parameters, and a generator for draws.
        check: refuses, by `ConfigError` and before anything runs, a task that the way cannot learn
            from: what the student has, and the way's parameters.
        private: whether it can learn under [privacy], by `run.private`.
        asks: what the task must offer, by the way's parameters, and who asks it; None: nothing.
        unlike_views: whether teachers may see other views of a record than the student.
        unlike_tokens: whether a teacher may write in other tokens than the student.
        augments: whether its inputs may change from step to step: nothing was computed of them
            before, and it makes neither them nor views of its own.
    """

    paper: str
    learn: Callable[[StudentRun, Any], nn.Module]
    Params: type[Frozen] = Frozen
    teachers: tuple[int, int] = (0, 0)
    forms: Literal["must", "may", "no"] = "no"
    remake: Remake | None = None
    share: Share | None = None
    check: Callable[[Task, Any], None] | None = None
    private: bool = False
    asks: Callable[[Any], Mapping[Ask, str]] | None = None
    unlike_views: bool = False
    unlike_tokens: bool = False
    augments: bool = False
