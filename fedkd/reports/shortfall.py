"""A word to who ran something whose student ends far below its teachers, with the key to change."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fedkd.config import Distillation, Experiment
from fedkd.methods import find
from fedkd.reports.figures import figure, named
from fedkd.runs.scores import shown_headline
from fedkd.tasks import mean_of

_log = logging.getLogger(__name__)

_FAR = 0.1
"""By how much a student may fall short of its teachers' mean: in a score that is a share, such as
accuracy, of 1; in any other, of that mean."""
_SEES_LESS = "it sees less than they do, so let it see more"
_LARGER = "take a larger student.model"


def of_federation(summary: Mapping[str, Any], experiment: Experiment) -> None:
    """Warn of a federation's student.

    Args:
        summary: as in `summary.json`.
        experiment: complete.
    """
    if (teachers := summary["teachers"]) is None or experiment.method.name == "local":
        return  # a local student is one client's own, and stands for what the others are worth
    card, params = find(experiment.method.name).card, experiment.method.parameters
    remedies: list[str] = []
    if experiment.unlike_views:
        remedies = [_SEES_LESS]
    elif experiment.privacy.epsilon is not None:
        remedies = [f"raise privacy.epsilon (now {experiment.privacy.epsilon:g})"]
    elif isinstance(params.get("student"), Mapping):
        remedies = [f"raise method.student.epochs (now {params['student']['epochs']})"]
    elif "epochs" in params:
        remedies = [f"raise method.epochs (now {params['epochs']})"]
    elif not card.one_shot:
        remedies = [f"raise rounds (now {experiment.rounds})"]
    if card.unlike_models:
        remedies.append(_LARGER)
    _warn(summary, teachers[shown_headline(summary).mean], remedies)


def of_distillation(summary: Mapping[str, Any], distillation: Distillation) -> None:
    """Warn of a distillation's student; arguments as in `of_federation`."""
    if not summary["teachers"] or summary.get("own_tokens"):
        return
    epochs = distillation.way.parameters.get("epochs")
    if distillation.way.name == "privileged":
        remedy = _SEES_LESS
    elif distillation.privacy is not None:
        remedy = f"raise privacy.epsilon (now {distillation.privacy.epsilon:g})"
    elif epochs is not None:
        remedy = f"raise way.epochs (now {epochs})"
    else:
        remedy = f"raise student.training.epochs (now {distillation.student.training.epochs})"
    key = shown_headline(summary).figure
    mean = mean_of([each[key] for each in summary["teachers"]])
    _warn(summary, mean, [remedy, _LARGER])


def _warn(summary: Mapping[str, Any], teachers: float | None, remedies: Sequence[str]) -> None:
    score = shown_headline(summary)
    student = summary["student"][score.figure]
    gap = score.gain(teachers, student)
    if gap is None or teachers is None:
        return
    if gap > (_FAR if score.share else _FAR * abs(teachers)):
        _log.warning(
            "the student ends at %s, far %s its teachers' mean of %s%s%s",
            named(score, student), "below" if score.higher else "above", figure(score, teachers),
            ": " if remedies else "", ", or ".join(remedies),
        )  # fmt: skip
