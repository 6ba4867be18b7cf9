"""A finished run's student, of a federation or of one party.

A run's folder may be anybody's: code that it names is never called as data, and as a model only
where it is the user's own, or can be nothing but a model (`common.check_code`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field
from torch import nn

from fedkd import config, data, models, rng, tasks
from fedkd.config import Distillation, Experiment, Source, TaskChoice
from fedkd.config.parts import absent
from fedkd.data import loader, scaling, views
from fedkd.data.texts.tokenizer import Tokenizer
from fedkd.data.types import Dataset, FederatedData, Limits
from fedkd.errors import ConfigError, DataError, MessageError, RunFolderError
from fedkd.exchange.codec import decode
from fedkd.learning.ways import prepare
from fedkd.learning.ways.base import Splits
from fedkd.models.weights import random
from fedkd.rows import Rows
from fedkd.runs import reading, tokenizers
from fedkd.runs.common import check_code
from fedkd.runs.scores import RunPart
from fedkd.tasks import Task, Vocabulary, with_inputs


@dataclass(frozen=True)
class FinishedStudent:
    """A run's student.

    Attributes:
        name: the experiment's.
        model: in evaluation mode.
        shape: of one input.
        class_names: what the places of its answers' last axis stand for, in order.
        features: what the columns of a row are called; none where inputs have no named columns.
        scale: what became -1 and 1 of a column, by name, before the student saw it; of records that
            are no rows of columns all values are one, `scaling.ALL`.
        task: what is asked of it, but for scores.
        tokenizer: how texts become its inputs; None where it takes none.
        columns: of texts, what it learned from: one column, or two of pairs.
        source: the run's `[data]`, which says how what is stored becomes inputs.
    """

    name: str
    model: nn.Module
    shape: tuple[int, ...]
    class_names: tuple[str, ...]
    features: tuple[str, ...]
    scale: Mapping[str, Limits]
    task: Task
    source: Source
    tokenizer: Tokenizer | None = None
    columns: tuple[str, ...] = ()


class Inputs(RunPart):
    """What a run's models see: enough to build its student again without the data."""

    shape: tuple[int, ...]
    """Of one input of the student."""
    classes: tuple[str, ...]
    """By label."""
    features: tuple[str, ...] = ()
    """The student's columns by name, where inputs have such."""
    scale: dict[str, Limits] = Field(default={})
    """What became -1 and 1 of a column, or of all values by the name `*`; a program that asks the
    student scales its records so."""
    teachers: tuple[tuple[int, ...], ...] = ()
    """Of a distillation: the shape of one input of each teacher."""
    tokens: dict[str, Vocabulary] = Field(default={}, exclude_if=absent)
    """Of texts: what tokens the student's inputs hold, by view."""
    teachers_tokens: tuple[dict[str, Vocabulary], ...] = Field(default=(), exclude_if=absent)
    """Of a distillation of texts: what tokens each teacher's inputs hold."""

    @classmethod
    def of(cls, seen: Dataset | FederatedData) -> "Inputs":
        """What the student sees of a data set."""
        columns = scaling.names(seen.features, seen.shape)
        known = (*columns, scaling.ALL)
        scale = {column: seen.scale[column] for column in known if column in seen.scale}
        return cls(
            shape=seen.shape,
            classes=seen.class_names,
            features=seen.features,
            scale=scale,
            tokens=seen.vocabularies,
        )

    @classmethod
    def of_splits(cls, splits: Splits) -> "Inputs":
        """What a distillation's student and teachers see."""
        teachers = tuple(each.shape for each in splits.teachers)
        tokens = tuple(each.vocabularies for each in splits.teachers if each.vocabularies)
        return cls.of(splits.student).model_copy(
            update={"teachers": teachers, "teachers_tokens": tokens}
        )

    def task(self, choice: TaskChoice) -> Task:
        """What is asked of the student, but for scores, on which no architecture depends."""
        asked = choice.model_copy(update={"scores": ()})
        words = self.tokens
        return tasks.build(asked, inputs=self.shape, names=self.classes, vocabularies=words)


class _Kept(RunPart):
    """What a run's `summary.json` says of inputs; a run made before says nothing."""

    inputs: Inputs | None = None


class _Scales(RunPart):
    """What a run's `partition.json` says of scales."""

    scale: dict[str, Limits] = Field(default={})


def is_distillation(run: Path) -> bool:
    """Whether a run folder is one party's distillation.

    Raises:
        RunFolderError: it is no run folder.
    """
    if not (run / "config.toml").is_file():
        raise RunFolderError(
            f"run folder {str(run)!r} has no config.toml: give a folder that fedkd wrote"
        )
    return "way" in config.read(run / "config.toml")


def load(run: Path) -> FinishedStudent:
    """Read a run's student. Of a run made before summaries had inputs, its data is read too.

    Raises:
        RunFolderError: it is no run folder, unfinished, or not of what its config.toml says.
        DataError: the data is needed and not here, or its records are tables.
    """
    file = run / "student.safetensors"
    experiment = _experiment(run)
    if not file.is_file():
        raise RunFolderError(
            f"run folder {str(run)!r} has no student.safetensors: the run is unfinished; "
            "finish it with --resume"
        )
    try:
        inputs = _inputs(run, experiment)
        if not inputs.shape:
            raise DataError(
                f"run folder {str(run)!r} has a student of named columns: expected one that takes "
                "records of one tensor"
            )
        distils = isinstance(experiment, Distillation)
        built = config.specs_in(experiment) if distils else [experiment.student.model]
        check_code(run, built, experiment.task.name)
        model = _model(experiment, inputs)
        model.load_state_dict(decode(file.read_bytes()))
        task = inputs.task(experiment.task)
    except (ConfigError, MessageError, RuntimeError) as error:
        raise _damaged(run, error) from error
    model.requires_grad_(requires_grad=False).eval()
    words, text = task.vocabulary, experiment.data.text
    agreed = {} if text is None else text.sha256
    return FinishedStudent(
        name=experiment.name,
        model=model,
        shape=inputs.shape,
        class_names=task.names,
        features=inputs.features,
        scale=inputs.scale,
        task=task,
        source=experiment.data,
        tokenizer=None if words is None else tokenizers.read(run, words, agreed),
        columns=() if text is None else text.columns,
    )


def tests(run: Path, student: FinishedStudent) -> Rows:
    """The inputs of a run's test set, as the student sees them.

    Raises:
        DataError: the data set is not here (it is not fetched), or is another one by now.
        ConfigError: it does not fit.
    """
    experiment = _experiment(run)
    name = experiment.data.name
    if name in data.NAMES and not any(there for _, there in data.locations(name)):
        raise DataError(f"data set {name!r} is not here")
    seen = Inputs.of(dataset := _seen(experiment))
    for what, now, then in (
        ("samples of shape", seen.shape, student.shape),
        ("the classes", seen.task(experiment.task).names, student.class_names),
        ("the columns", seen.features, student.features),
    ):
        if now != then:
            raise DataError(f"data set {name!r} has {what} {now}; the student was made for {then}")
    return dataset.test.x


def _experiment(run: Path) -> Experiment | Distillation:
    read = config.load_distillation if is_distillation(run) else config.load
    try:
        return read(run / "config.toml")
    except ConfigError as error:
        raise _damaged(run, error) from error


def _inputs(run: Path, experiment: Experiment | Distillation) -> Inputs:
    """What the run's models see, from its summary; from its data where that does not say."""
    file = run / "summary.json"
    kept = reading.parse(_Kept, reading.text(file), file) if file.is_file() else _Kept()
    if kept.inputs is not None:
        return _with_scale(run, kept.inputs)
    try:
        if isinstance(experiment, Distillation):
            return Inputs.of_splits(prepare.shares(experiment))
        return Inputs.of(_seen(experiment))
    except DataError as error:
        raise DataError(
            f"run folder {str(run)!r} is an earlier fedkd's, which kept nothing of its student's "
            f"inputs, and its data is needed: {error}"
        ) from error


def _with_scale(run: Path, inputs: Inputs) -> Inputs:
    """With the scale of all values, which an earlier fedkd kept in `partition.json` alone."""
    file = run / "partition.json"
    columns = scaling.names(inputs.features, inputs.shape)
    if inputs.scale or columns or inputs.tokens or not file.is_file():
        return inputs
    scale = reading.parse(_Scales, reading.text(file), file).scale
    return inputs.model_copy(update={"scale": scale}) if scaling.ALL in scale else inputs


def _seen(experiment: Experiment | Distillation) -> Dataset:
    """The data set, with what the student sees of it.

    Raises:
        ConfigError: it does not fit.
        DataError: it is not here.
    """
    if loader.is_path(experiment.data.name):
        raise DataError(
            f"data.name = {experiment.data.name!r} is code, and a run's folder may be anybody's: "
            "none is called for it"
        )
    if isinstance(experiment, Distillation):
        return prepare.shares(experiment).student
    dataset = data.load(
        experiment.data, seed=experiment.seed, targets=tasks.find(experiment.task.name).targets
    )
    return dataset.seen_by(views.students(experiment, dataset.train.x, dataset.features))


def _model(experiment: Experiment | Distillation, inputs: Inputs) -> nn.Module:
    """A model of the student's architecture; what it once started from need not be there."""
    experiment = config.with_specs(experiment, random)
    task = inputs.task(experiment.task)
    if isinstance(experiment, Distillation):
        words = inputs.teachers_tokens or ({},) * len(inputs.teachers)
        seen = zip(inputs.teachers, words, strict=True)
        teachers = [with_inputs(task, shape, each) for shape, each in seen]
        return prepare.student(experiment, task, teachers)
    draws = rng.stream(experiment.seed, purpose="student")
    spec = experiment.student.model
    return models.build(spec, shape=inputs.shape, classes=task.classes, generator=draws, task=task)


def _damaged(run: Path, error: Exception) -> RunFolderError:
    reason = str(error).splitlines()[0]
    if isinstance(error.__cause__, ModuleNotFoundError):
        remedy = "start the command in the folder that has the module"
        return RunFolderError(f"run folder {str(run)!r}: {reason}; {remedy}")
    return RunFolderError(f"run folder {str(run)!r}: {reason}; run it again")
