"""What every client adds to a method's upload: how well its teacher does, and where the time went.

The test set is not a client's private data, so its teacher's score on it is post-processing of the
teacher.
"""

import torch

from fedkd.data.types import Samples
from fedkd.errors import MessageError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Release, Tensors, Value
from fedkd.learning import evaluate
from fedkd.methods.core.base import ClientContext, Setting
from fedkd.methods.core.setting import PHASES
from fedkd.privacy.events import Unprotected
from fedkd.specs import TensorSpec

_LONGEST = 1e7
"""Seconds, four months: more than a phase takes, and a sum of many stays finite."""
_CORRECT, _SECONDS = "report/correct", "report/seconds"
_SCORED = ("none", "record")
"""The units under which a teacher's score may leave."""


def values(ctx: ClientContext, test: Samples) -> dict[str, Value]:
    """The teacher's correct answers by class, where there is a teacher, and seconds by phase.

    Under `record` no seconds: how long a training takes tells how much data there is. Under the
    client units nothing: only what the server protects may show.
    """
    unit = ctx.setting.experiment.privacy.unit
    reported: dict[str, Value] = {}
    if ctx.has_teacher and unit in _SCORED:
        with ctx.clock.phase("evaluate"):
            correct = evaluate.correct_by_class(ctx.teacher, test, ctx.setting.classes)
        reported[_CORRECT] = Value(correct, ctx.from_teacher)
    if unit != "none":
        return reported
    seconds = [ctx.clock.seconds.get(phase, 0.0) for phase in PHASES]
    clock = torch.tensor(seconds, dtype=torch.float64)
    return {**reported, _SECONDS: Value(clock, Release(Unprotected("seconds by phase")))}


def expected(setting: Setting, *, teacher: bool) -> Expected:
    """What `values` must look like to the server."""
    unit = setting.experiment.privacy.unit
    specs: dict[str, TensorSpec] = {}
    if teacher and unit in _SCORED:
        specs[_CORRECT] = TensorSpec((setting.classes,), torch.int64, low=0)
    if unit == "none":
        specs[_SECONDS] = TensorSpec((len(PHASES),), torch.float64, low=0, high=_LONGEST)
    return specs


def check(upload: Tensors, totals: torch.Tensor) -> None:
    """Refuse a score that no teacher can have.

    Args:
        upload: one client's tensors, as `expected`.
        totals: the test samples of each class (C,).

    Raises:
        MessageError: more correct answers than samples.
    """
    right = correct(upload)
    if right is not None and bool((right > totals).any()):
        raise MessageError(f"field {_CORRECT!r} counts more than the test samples of a class")


def correct(upload: Tensors) -> torch.Tensor | None:
    """The teacher's correct answers by class (C,); None where there is no teacher."""
    return upload.get(_CORRECT)


def seconds(upload: Tensors) -> dict[str, float]:
    """Seconds by phase, phases that did not happen left out."""
    if _SECONDS not in upload:
        return {}
    times = upload[_SECONDS].tolist()
    return {phase: spent for phase, spent in zip(PHASES, times, strict=True) if spent > 0}
