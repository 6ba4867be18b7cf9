"""Scores from torchmetrics, and what it has no counters for."""

import inspect
import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedkd.errors import ConfigError
from fedkd.names import imported
from fedkd.optional import ready_torchvision
from fedkd.specs import TensorSpec
from fedkd.tasks.base import Score, Task

if TYPE_CHECKING:  # it takes seconds to import, and the default score needs none of it
    from torchmetrics import Metric


def measured(
    name: str,
    metric: "Callable[[], Metric]",
    shown: Callable[[Tensor], Tensor],
    *,
    higher: bool = True,
    share: bool = True,
    number: bool = True,
    by_class: "Callable[[], Metric] | None" = None,
) -> Score:
    """A torchmetrics metric as a score: its states, one after the other, are the counters.

    They are int64 where all that the metric does is count, else float64.

    Args:
        name: of the score.
        metric: makes a fresh metric.
        shown: what the metric gets of answers.
        higher: see `Score`.
        share: see `Score`.
        number: see `Score`.
        by_class: makes a metric that reads the same states class by class.

    Raises:
        ConfigError: a state of the metric is no tensor that parties may add.
    """
    fresh = metric()
    states: dict[str, Tensor] = {}
    for state, value in fresh.metric_state.items():
        # There is no public way to ask how states of parties are put together.
        adds = getattr(fresh._reductions[state], "__name__", "") == "dim_zero_sum"
        if not adds or not isinstance(value, Tensor):
            raise ConfigError(
                f"score {name!r} keeps {state!r}, which parties cannot add up: expected a metric "
                "whose states all reduce by sum, such as one with thresholds"
            )
        states[state] = value
    sizes = [value.numel() for value in states.values()]
    counting = all(not value.is_floating_point() for value in states.values())
    dtype = torch.int64 if counting else torch.float64

    def tally(answers: Tensor, targets: Tensor) -> Tensor:
        one = metric()
        one.update(shown(answers), targets)
        return torch.cat([getattr(one, state).to(dtype).flatten() for state in states])

    def most(targets: Tensor) -> Tensor:
        return torch.tensor(targets.numel() if counting else math.inf)

    def computed(one: "Metric", counters: Tensor, *, number: bool) -> Any:
        pieces = torch.split(counters, sizes)
        for (state, like), piece in zip(states.items(), pieces, strict=True):
            setattr(one, state, piece.to(like.dtype).reshape(like.shape))
        one._update_count = 1  # or it warns that nothing was counted
        return _plain(one, number=number)

    def read(counters: Tensor, _totals: Tensor) -> dict[str, Any]:
        figures = {score.figure: computed(metric(), counters, number=number)}
        if by_class is not None:
            figures[score.by_class] = computed(by_class(), counters, number=False)
        return figures

    spec = TensorSpec((sum(sizes),), dtype, low=0 if counting else -math.inf)
    score = Score(name, tally, read, spec, most, higher=higher, share=share, number=number)
    return score


def _plain(metric: "Metric", *, number: bool) -> Any:
    """What a metric computes as plain numbers; None where it is not defined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without records, which are left out
        try:
            value = metric.compute()
        except ValueError:  # R2 of a single record, for one
            return None
    if not number:
        return value.tolist()
    return float(value) if bool(torch.isfinite(value)) else None


def own(path: str, shown: Callable[[Tensor], Tensor], outputs: int) -> Score:
    """A user's score by import path: a torchmetrics metric whose states all reduce by sum.

    A class or function is called with `num_classes`, `num_labels` or `num_outputs`, as it asks.

    Raises:
        ConfigError: it cannot be imported or made, or is none.
    """
    ready_torchvision()  # which torchmetrics imports where it is installed
    from torchmetrics import Metric

    factory = imported(path, what="score")
    if not callable(factory):
        raise ConfigError(
            f"score {path!r} is {type(factory).__name__!r}: expected a metric's class"
        )
    asked = inspect.signature(factory).parameters
    counts = {key: outputs for key in ("num_classes", "num_labels", "num_outputs") if key in asked}

    def metric() -> Metric:
        made: Metric = factory(**counts)
        return made

    try:
        fresh = metric()
    except Exception as error:
        raise ConfigError(
            f"score {path!r} cannot be made from the keywords {', '.join(counts) or 'none'}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(fresh, Metric):
        raise ConfigError(
            f"score {path!r} made {type(fresh).__name__!r}: expected a torchmetrics.Metric"
        )
    return measured(
        path.partition(":")[2],
        metric,
        shown,
        higher=fresh.higher_is_better is not False,
        share=False,
        number=_is_number(path, fresh),
    )


def check_own(path: str, score: Score, task: Task) -> None:
    """Take a user's score once of answers of nothing, before clients fail by it one by one.

    Raises:
        ConfigError: it takes no answers and targets such as the task's.
    """
    outputs = len(task.names)
    # One record more than outputs, or (N,) would pass for a row of them.
    shape = (outputs + 1, *_target_of(task))
    answers = torch.zeros(outputs + 1, *task.answer)
    targets = torch.zeros(shape, dtype=torch.float32 if task.targets == "numbers" else torch.int64)
    try:
        score.tally(answers, targets)
    except Exception as error:
        why = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"score {path!r} does not suit task {task.name!r}: of answers {tuple(answers.shape)} "
            f"and targets {shape} it raises {type(error).__name__}: {why}; expected a metric that "
            "takes both, or a score that 'fedkd tasks' lists"
        ) from error


def _target_of(task: Task) -> tuple[int, ...]:
    """The shape of one record's target."""
    if task.targets in ("classes", "identities"):
        return ()
    places = ("masks", "tags", "spans", "tokens", "next-tokens")
    return task.answer[:-1] if task.targets in places else (len(task.names),)


def _is_number(path: str, fresh: "Metric") -> bool:
    """Whether a user's metric computes one number, and not one a class.

    Raises:
        ConfigError: it computes no tensor.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has counted nothing
        try:
            value = fresh.compute()
        except Exception:  # noqa: BLE001 - of nothing counted, which is no fault
            return True
    if not isinstance(value, Tensor):
        raise ConfigError(
            f"score {path!r} computes {type(value).__name__!r}: expected a tensor, of one number "
            "or of one a class"
        )
    return value.numel() == 1


BINS = 15
"""Of confidences, in the expected calibration error."""


def calibration_error(_classes: int) -> Score:
    """How far confidence is from being right, over `BINS` bins of equal width, in [0, 1].

    Guo et al. 2017, arXiv:1706.04599. torchmetrics keeps every confidence; these counters add up:
    records, right ones and summed confidence by bin, float64 (3, BINS).
    """

    def most(targets: Tensor) -> Tensor:
        return torch.tensor(float(targets.numel()))

    def tally(answers: Tensor, targets: Tensor) -> Tensor:
        confidence, decided = answers.double().softmax(dim=-1).max(dim=-1)
        places = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
        rows = torch.stack([torch.ones_like(confidence), decided.eq(targets).double(), confidence])
        return torch.zeros(3, BINS, dtype=torch.float64).index_add_(1, places, rows)

    def read(counters: Tensor, _totals: Tensor) -> dict[str, Any]:
        records, right, confidence = counters
        total = float(records.sum())
        gap = float((right - confidence).abs().sum())
        figure = gap / total if total else math.nan  # as of answers that are not finite
        return {"calibration_error": figure if math.isfinite(figure) else None}

    spec = TensorSpec((3, BINS), torch.float64, low=0)
    return Score("calibration-error", tally, read, spec, most, higher=False)
