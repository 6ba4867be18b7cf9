"""Scores as a run folder has them: their figures, and how these are shown."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from fedkd.tasks import ACCURACY, Figures, Task


class RunPart(BaseModel):
    """A part of what a run wrote: immutable; keys that the report has no use for are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Numbers = tuple[float | None, ...]
"""One a class or label; None where it is not defined, as of a class without test samples."""


class ShownScore(Figures, RunPart):
    """How a score's figures are shown; see `fedkd.tasks.Score`."""

    name: str
    higher: bool = True
    share: bool = True
    number: bool = True


ACCURACY_ALONE = (ShownScore(name=ACCURACY),)
"""The scores of runs that name none."""


def shown_scores(task: Task) -> dict[str, Any]:
    """How the figures of scores are shown, under `scores`; nothing where accuracy is the only one.

    So whoever reads a run needs neither its task nor a user's own metric.
    """
    if [score.name for score in task.scores] == [ACCURACY]:
        return {}
    kept = ("name", "higher", "share", "number")
    return {"scores": [{key: getattr(score, key) for key in kept} for score in task.scores]}


def shown_headline(summary: Mapping[str, Any]) -> ShownScore:
    """The score of tables and charts, by `summary.json` as a mapping."""
    first = summary.get("scores", ACCURACY_ALONE)[0]
    return ShownScore.model_validate(first)


class Scores(RunPart):
    """How one model does on the test set: figures by name, shares in [0, 1]."""

    figures: dict[str, float | Numbers | tuple[Numbers, ...] | None]

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, value: Any) -> Any:
        """In files figures stand beside all else."""
        if not isinstance(value, Mapping) or "figures" in value:
            return value
        known = {key: each for key, each in value.items() if key in cls.model_fields}
        return {**known, "figures": {k: each for k, each in value.items() if k not in known}}

    def number(self, name: str) -> float:
        """A figure that is one number; NaN where it is not defined."""
        figure = self.figures.get(name)
        return figure if isinstance(figure, float) else math.nan

    def by_class(self, name: str) -> Numbers | None:
        """A figure that is a list by class or label; None where there is none."""
        figure = self.figures.get(name)
        if not isinstance(figure, tuple):
            return None
        return tuple(each for each in figure if not isinstance(each, tuple))

    @property
    def classes(self) -> int:
        """How many classes or labels figures tell apart, 0 where none does."""
        return max((len(f) for f in self.figures.values() if isinstance(f, tuple)), default=0)

    def table(self, name: str) -> tuple[Numbers, ...] | None:
        """A figure that is a table, such as a confusion matrix; None where there is none."""
        figure = self.figures.get(name)
        if not isinstance(figure, tuple):
            return None
        return tuple(each for each in figure if isinstance(each, tuple)) or None
