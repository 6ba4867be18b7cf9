"""What was learned stage by stage, and what was forgotten: under `continual` in `summary.json`."""

from collections.abc import Sequence
from typing import Any

from fedkd.runs.scores import Numbers, RunPart
from fedkd.tasks import Score
from fedkd.tasks.scores.forgetting import (
    Matrix,
    average,
    backward_transfer,
    forgetting,
    forward_transfer,
)
from fedkd.tasks.stages import Scenario, Stages


class Learned(RunPart):
    """A model's headline scores stage by stage, and what they come to: see `scores.forgetting`."""

    matrix: tuple[Numbers, ...]
    """Row k, column j: on stage j, after stage k was learned."""
    average: float | None
    forgetting: float | None
    backward_transfer: float | None
    forward_transfer: float | None


class ContinualScores(Learned):
    """The student's."""

    scenario: Scenario
    stages: tuple[str, ...]
    finetuned: Learned | None = None
    """Of the student that is reminded of nothing."""
    joint: Numbers | None = None
    """Of the student that learned from all stages at once, by stage."""


class StageScores(RunPart):
    """Of a round: its stage, from 1, and the student's headline score on each stage."""

    stage: int
    scores: Numbers


def learned(matrix: Matrix, untrained: Sequence[float | None], score: Score) -> dict[str, Any]:
    """What `Learned` reads.

    Args:
        matrix: scores by stage, a row after each stage; see `scores.forgetting`.
        untrained: scores by stage of the model as it began.
        score: the headline.
    """
    return {
        "matrix": [list(row) for row in matrix],
        "average": average(matrix),
        "forgetting": forgetting(matrix, score),
        "backward_transfer": backward_transfer(matrix, score),
        "forward_transfer": forward_transfer(matrix, untrained, score),
    }


def about(stages: Stages) -> dict[str, Any]:
    """What stages there are, and what is asked after them."""
    return {"scenario": stages.scenario, "stages": list(stages.names)}
