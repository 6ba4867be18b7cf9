"""A word to who ran something whose student ends far below its teachers, with the key to change."""

import logging
from collections.abc import Mapping
from typing import Any

from fedkd.config import Distillation, Experiment
from fedkd.runs.words import percent

_log = logging.getLogger(__name__)

_FAR = 0.1
"""The share of test samples by which a student may fall short of its teachers' mean."""


def of_federation(summary: Mapping[str, Any], experiment: Experiment) -> None:
    """Warn of a federation's student.

    Args:
        summary: as in `summary.json`.
        experiment: complete.
    """
    if (teachers := summary["teachers"]) is None:
        return
    params = experiment.method.parameters
    key, now = "rounds", experiment.rounds
    if isinstance(params.get("student"), Mapping):
        key, now = "method.student.epochs", params["student"]["epochs"]
    elif "epochs" in params:
        key, now = "method.epochs", params["epochs"]
    _warn(summary, teachers["mean_accuracy"], f"raise {key} (now {now})")


def of_distillation(summary: Mapping[str, Any], distillation: Distillation) -> None:
    """Warn of a distillation's student; arguments as in `of_federation`."""
    if not summary["teachers"]:
        return
    own = distillation.way.parameters.get("epochs")
    key, now = "way.epochs", own
    if distillation.privacy is not None:
        key, now = "privacy.epsilon", distillation.privacy.epsilon
    elif own is None:
        key, now = "student.training.epochs", distillation.student.training.epochs
    mean = sum(each["accuracy"] for each in summary["teachers"]) / len(summary["teachers"])
    _warn(summary, mean, f"raise {key} (now {now:g})")


def _warn(summary: Mapping[str, Any], teachers: float, remedy: str) -> None:
    student = summary["student"]["accuracy"]
    if student < teachers - _FAR:
        _log.warning(
            "the student ends at %s, far below its teachers' mean of %s: %s, or take a larger "
            "student.model",
            percent(student), percent(teachers), remedy,
        )  # fmt: skip
