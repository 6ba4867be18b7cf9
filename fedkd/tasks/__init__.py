"""What is asked of a model: tasks by name or import path; one task, one file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedkd.config import TaskChoice, validate
from fedkd.errors import ConfigError
from fedkd.names import choices, imported, unknown
from fedkd.optional import ready_torchvision
from fedkd.tasks.base import (
    ACCURACY,
    WRITTEN,
    Ask,
    Figures,
    Likelihood,
    Score,
    Targets,
    Task,
    mean_of,
    with_inputs,
)
from fedkd.tasks.kind import TaskKind
from fedkd.tasks.scores.metrics import check_own, own
from fedkd.tasks.scores.written import Decode, TextScore
from fedkd.tasks.vocabulary import Vocabulary

__all__ = [
    "ACCURACY",
    "WRITTEN",
    "Ask",
    "Figures",
    "Likelihood",
    "Score",
    "Targets",
    "Task",
    "TaskKind",
    "Vocabulary",
    "build",
    "find",
    "headline",
    "mean_of",
    "with_inputs",
]

_RECORD_KEYS = ("by_class", "curve", "model", "parameters", "bytes", "latency", "scores")
"""What stands beside figures in a record or summary."""

BUILT_IN = {
    "classification": "fedkd.tasks.classification:KIND",
    "detection": "fedkd.tasks.detection:KIND",
    "embedding": "fedkd.tasks.embedding:KIND",
    "keypoints": "fedkd.tasks.keypoints:KIND",
    "language-model": "fedkd.tasks.texts.language_model:KIND",
    "multi-label": "fedkd.tasks.multi_label:KIND",
    "recommendation": "fedkd.tasks.recommendation:KIND",
    "regression": "fedkd.tasks.regression:KIND",
    "retrieval": "fedkd.tasks.texts.retrieval:KIND",
    "segmentation": "fedkd.tasks.segmentation:KIND",
    "sequence-to-sequence": "fedkd.tasks.texts.sequence_to_sequence:KIND",
    "span": "fedkd.tasks.texts.span:KIND",
    "tagging": "fedkd.tasks.texts.tagging:KIND",
}


def find(name: str) -> TaskKind:
    """A kind of task: a built-in by name, or a user's own by import path.

    Raises:
        ConfigError: no such task, or what the path names is none.
    """
    path = BUILT_IN.get(name, name)
    if ":" not in path:
        also = ", or your own, 'package.module:KIND'"
        raise ConfigError(unknown("task", name, BUILT_IN, also=also))
    if path == name:
        ready_torchvision()  # which a user's torchmetrics imports where it is installed
    found = imported(path, what="task")
    if not isinstance(found, TaskKind):
        raise ConfigError(f"task {name!r} is no task: expected a fedkd.tasks.TaskKind")
    return found


def build(
    choice: TaskChoice,
    *,
    inputs: tuple[int, ...],
    names: Sequence[str],
    vocabularies: Mapping[str, Vocabulary] | None = None,
    decode: Decode | None = None,
) -> Task:
    """The task that a configuration asks of a data set.

    Args:
        choice: the section `[task]`.
        inputs: the shape of one record's inputs.
        names: of the classes, labels or numbers of its targets.
        vocabularies: of texts, what tokens records hold, by view.
        decode: token numbers as texts, for scores of what models write.

    Raises:
        ConfigError: an unknown task, key or score, or a score that does not suit.
    """
    kind = find(choice.name)
    known = ("name", "scores", *kind.Options.model_fields)
    for key in choice.parameters:
        if key not in known:
            raise ConfigError(f"unknown key 'task.{key}': {choices(key, known, prefix='task.')}")
    options = validate(kind.Options, choice.parameters, prefix="task.")
    asked = choice.scores or kind.default
    scores = [_score(kind, choice.name, score, len(names)) for score in asked]
    _check_distinct(scores)
    if not scores[0].number:
        raise ConfigError(
            f"task.scores begins with {asked[0]!r}, which is no single number: name another first"
        )
    if kind.of_texts and not vocabularies:
        raise ConfigError(
            f"task {choice.name!r} is for texts, and records of the data have shape {inputs}: name "
            "a table with a column of texts, and say by [data.text] how they become numbers"
        )
    if kind.targets == "identities" and vocabularies and not kind.of_texts:
        raise ConfigError(
            f"task {choice.name!r} has one vector a record, and records of texts are pairs of a "
            "question and its answer: choose task 'retrieval'"
        )
    task = kind.build(options, inputs, tuple(names), scores)
    if vocabularies:
        task = with_inputs(task, inputs, vocabularies)
    if decode is not None:
        task = replace(task, scores=tuple(_of_task(score, task, decode) for score in task.scores))
    for path, score in zip(asked, scores, strict=True):
        if ":" in path:
            check_own(path, score, task)
    return task


def headline(choice: TaskChoice) -> Figures:
    """The name of a configuration's first score, and how it is read, before there is data.

    Raises:
        ConfigError: as `build`.
    """
    kind = find(choice.name)
    return _score(kind, choice.name, (choice.scores or kind.default)[0], outputs=2)


def _check_distinct(scores: Sequence[Score]) -> None:
    """Refuse scores that would write into one place of a record."""
    taken = dict.fromkeys(_RECORD_KEYS, "which a record has already")
    for score in scores:
        if score.figure in taken:
            raise ConfigError(
                f"task.scores names {score.name!r}, {taken[score.figure]}: leave it out, or give "
                "the metric another name"
            )
        taken[score.figure] = taken[score.by_class] = "and it names it before"


def _of_task(score: Score, task: Task, decode: Decode) -> Score:
    return score.of_task(task, decode) if isinstance(score, TextScore) else score


def _score(kind: TaskKind, task: str, name: str, outputs: int) -> Score:
    if ":" in name:
        return own(name, kind.shown, outputs)
    if name not in kind.scores:
        raise ConfigError(
            f"task.scores names {name!r}, which does not suit task {task!r}: "
            f"{choices(name, kind.scores)}, or your own torchmetrics metric, "
            "'package.module:Class'"
        )
    return kind.scores[name](outputs)
