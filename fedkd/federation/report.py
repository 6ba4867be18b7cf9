"""What every client adds to a method's upload: how well its teacher does, and where the time went.

The test set is not a client's private data, so its teacher's score on it is post-processing of the
teacher.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedkd.data.types import Samples
from fedkd.errors import MessageError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Release, Tensors, Value
from fedkd.learning import evaluate
from fedkd.methods.core.base import ClientContext, Setting
from fedkd.methods.core.setting import PHASES
from fedkd.privacy.events import Unprotected
from fedkd.specs import TensorSpec
from fedkd.tasks import ACCURACY, Score

LARGEST = 1e200
"""Of a figure: what float32 answers lead to is less, and a mean of many such stays finite."""
_LONGEST = 1e7
"""Seconds, four months: more than a phase takes, and a sum of many stays finite."""
_SECONDS = "report/seconds"
_SCORED = ("none", "record")
"""The units under which a teacher's score may leave."""


def _field(score: Score) -> str:
    return "report/correct" if score.name == ACCURACY else f"report/{score.figure}"


def values(ctx: ClientContext, test: Samples | None) -> dict[str, Value]:
    """The tallies of the teacher's scores on `test`, where there are both, and seconds by phase.

    Under secure aggregation no scores: they are one client's own. Under `record` no seconds: how
    long a training takes tells how much data there is. Under the client units nothing: only what
    the server protects may show.
    """
    unit = ctx.setting.experiment.privacy.unit
    reported: dict[str, Value] = {}
    if test is not None and (own := ctx.own_model) is not None and _may_leave(ctx.setting):
        scores = ctx.setting.task.scores
        with ctx.clock.phase("evaluate"), ctx.on_device(own):
            counted = evaluate.tallies(own, test, scores)
        for score in scores:
            reported[_field(score)] = Value(counted[score.figure], ctx.from_teacher)
    if unit != "none":
        return reported
    seconds = [ctx.clock.seconds.get(phase, 0.0) for phase in PHASES]
    clock = torch.tensor(seconds, dtype=torch.float64)
    return {**reported, _SECONDS: Value(clock, Release(Unprotected("seconds by phase")))}


def _may_leave(setting: Setting) -> bool:
    return setting.experiment.privacy.unit in _SCORED and not setting.securely


def expected(setting: Setting, *, scored: bool) -> Expected:
    """What `values` must look like to the server, of a teacher that is scored, or not."""
    unit = setting.experiment.privacy.unit
    specs: dict[str, TensorSpec] = {}
    if scored and _may_leave(setting):
        specs |= {_field(score): score.counts for score in setting.task.scores}
    if unit == "none":
        specs[_SECONDS] = TensorSpec((len(PHASES),), torch.float64, low=0, high=_LONGEST)
    return specs


def check(upload: Tensors, scores: Sequence[Score], totals: Mapping[str, Tensor]) -> None:
    """Refuse scores that no teacher can have.

    Args:
        upload: one client's tensors, as `expected`.
        scores: the task's.
        totals: what counters of all test samples can be, by the name of the score's figure.

    Raises:
        MessageError: more of something than there are test samples, such as right answers of a
            class, a share that is not in [0, 1], or a figure beyond `LARGEST`.
    """
    for score in scores:
        if (tally := upload.get(_field(score))) is None:
            continue
        most = totals[score.figure]
        if bool((tally > most).any()):
            raise MessageError(f"field {_field(score)!r} counts more than the test samples")
        try:
            figures = score.read(tally, most)
        except Exception as error:  # a library's, of counters that it would not have made
            raise MessageError(f"field {_field(score)!r} holds no score") from error
        figure = figures[score.figure]
        if not all(map(_is_plain, figures.values())):
            raise MessageError(f"field {_field(score)!r} leads to figures beyond {LARGEST:g}")
        if score.number and score.share and figure is not None and not 0 <= figure <= 1:
            raise MessageError(f"field {_field(score)!r} holds a share that is not in [0, 1]")


def _is_plain(figure: Any) -> bool:
    """Whether a record can hold a figure, or a list of such, and its mean with others."""
    if isinstance(figure, list):
        return all(map(_is_plain, figure))
    return figure is None or abs(figure) <= LARGEST


def tallies(upload: Tensors, scores: Sequence[Score]) -> dict[str, Tensor] | None:
    """The tallies of the teacher's scores, by figure; None where there is no teacher."""
    found = {s.figure: upload[_field(s)] for s in scores if _field(s) in upload}
    return found or None


def seconds(upload: Tensors) -> dict[str, float]:
    """Seconds by phase, phases that did not happen left out."""
    if _SECONDS not in upload:
        return {}
    times = upload[_SECONDS].tolist()
    return {phase: spent for phase, spent in zip(PHASES, times, strict=True) if spent > 0}
