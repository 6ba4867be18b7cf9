"""Personal scores: how well each client's own model does on rows of its own that never train.

Beside it, in a simulation, the global student on the same rows: in a deployment they stay at the
site, and the student does not come there. A score on private rows is a fact about them, so without
protection it leaves as what it is, and under a privacy unit or secure aggregation not at all.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fedkd.config import Experiment
from fedkd.data.types import Samples
from fedkd.errors import MessageError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Release, Tensors, Value
from fedkd.federation.report import LARGEST
from fedkd.learning import evaluate
from fedkd.methods.core.base import ClientContext, Setting
from fedkd.privacy.events import Unprotected
from fedkd.specs import TensorSpec
from fedkd.tasks import Score, mean_of

_log = logging.getLogger(__name__)

_FIGURES, _DEFINED, _ROWS = "personal/figures", "personal/defined", "personal/rows"
_MOST_ROWS = 10**9


def are_sent(experiment: Experiment) -> bool:
    """Whether clients say how they do on their held-out rows."""
    privacy = experiment.privacy
    bare = privacy.unit == "none" and not privacy.secure_aggregation
    return bare and experiment.clients.test_share is not None


def warn_of_withheld(experiment: Experiment) -> None:
    """Warn whoever holds rows out for scores that nobody will see."""
    share, privacy = experiment.clients.test_share, experiment.privacy
    if share is None or are_sent(experiment):
        return
    hidden = "secure aggregation" if privacy.unit == "none" else f"privacy.unit = {privacy.unit!r}"
    _log.warning(
        "clients.test_share = %g holds records out, and their scores are withheld under %s: "
        "they are facts about private records; leave it out to train on all", share, hidden,
    )  # fmt: skip


def values(ctx: ClientContext, model: nn.Module, held_out: Samples) -> dict[str, Value]:
    """The figures of the client's own model on its held-out rows, and how many these are."""
    numbers = ctx.setting.task.numbers
    with ctx.on_device(model):
        found = evaluate.score(model, held_out, numbers) if len(held_out) else {}
    figures = [found.get(score.figure) for score in numbers]
    release = Release(Unprotected("scores on held-out rows"))
    given = torch.tensor([figure or 0.0 for figure in figures], dtype=torch.float64)
    return {
        _FIGURES: Value(given, release),
        _DEFINED: Value(torch.tensor([figure is not None for figure in figures]), release),
        _ROWS: Value(torch.tensor(len(held_out)), release),
    }


def expected(setting: Setting) -> Expected:
    """What `values` must look like to the server."""
    count = len(setting.task.numbers)
    return {
        _FIGURES: TensorSpec((count,), torch.float64, low=-LARGEST, high=LARGEST),
        _DEFINED: TensorSpec((count,), torch.bool),
        _ROWS: TensorSpec((), torch.int64, low=0, high=_MOST_ROWS),
    }


def check(upload: Tensors, numbers: Sequence[Score]) -> None:
    """Refuse figures that no model can have.

    Raises:
        MessageError: a share that is not in [0, 1].
    """
    for score, figure in zip(numbers, upload.get(_FIGURES, torch.zeros(0)).tolist(), strict=False):
        if score.share and not 0 <= figure <= 1:
            raise MessageError(f"field {_FIGURES!r} holds a share that is not in [0, 1]")


def describe(
    uploads: Mapping[int, Tensors],
    numbers: Sequence[Score],
    student: nn.Module,
    held_out: Sequence[Samples],
) -> dict[str, Any] | None:
    """A round's personal scores by client, and their means; None where clients send none.

    `mean_...` counts every client once, `weighted_mean_...` by its held-out rows; `student` has
    the same of the global student on the same rows, null where these are not at hand.

    Args:
        uploads: what clients sent, by client.
        numbers: the task's scores that are one number.
        student: the global student after the round.
        held_out: each client's held-out rows as the student sees them, where they are at hand.
    """
    by_client: dict[str, dict[str, Any]] = {}
    for client, upload in uploads.items():
        if _ROWS not in upload:
            continue
        given = zip(numbers, upload[_FIGURES].tolist(), upload[_DEFINED].tolist(), strict=True)
        rows = held_out[client] if client < len(held_out) else None
        found = evaluate.score(student, rows, numbers) if rows is not None and len(rows) else None
        by_client[str(client)] = {
            "rows": int(upload[_ROWS]),
            **{score.figure: figure if known else None for score, figure, known in given},
            "student": found and {score.figure: found[score.figure] for score in numbers},
        }
    return averaged(numbers, by_client) if by_client else None


def averaged(
    numbers: Sequence[Score], by_client: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Personal scores by client with their means over clients."""
    rows = [each["rows"] for each in by_client.values()]
    students = [each["student"] or {} for each in by_client.values()]
    known = any(students)
    return {
        **_means(numbers, list(by_client.values()), rows),
        "student": _means(numbers, students, rows) if known else None,
        "by_client": dict(by_client),
    }


def _means(
    numbers: Sequence[Score], each: Sequence[Mapping[str, Any]], rows: Sequence[int]
) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for score in numbers:
        figures = [one.get(score.figure) for one in each]
        pairs = [(f, n) for f, n in zip(figures, rows, strict=True) if f is not None and n]
        total = sum(n for _, n in pairs)
        means[score.mean] = mean_of(figures)
        means[score.weighted] = sum(f * n for f, n in pairs) / total if total else None
    return means
