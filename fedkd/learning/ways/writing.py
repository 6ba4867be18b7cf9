"""Learning to write from a teacher that writes: `sequence-level` and `on-policy`."""

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.data.texts.retold import retold
from fedkd.data.types import Samples
from fedkd.errors import ConfigError
from fedkd.learning import evaluate, optim
from fedkd.learning.loop import OnEpoch, fit
from fedkd.learning.ways.base import StudentRun
from fedkd.models.layers import LOGITS, forward_with
from fedkd.models.text import writing
from fedkd.rows import Rows, whole
from fedkd.tasks import WRITTEN, Task


class Begun(Frozen):
    """A parameter that both ways have."""

    prompt: int = Field(default=8, ge=1)
    """With how many tokens of a record what is written begins, of a language model."""


class SequenceLevel(Begun):
    """Parameters of `sequence-level`."""

    labels: float = Field(default=0.0, ge=0)
    """The weight of the loss on the true texts, beside 1 of that on what the teacher wrote."""


class OnPolicy(Begun):
    """Parameters of `on-policy`."""

    labels: float = Field(default=0.0, ge=0)
    """The weight of the loss on the true texts, where a batch is one of these."""
    student_share: float = Field(default=0.5, ge=0, le=1)
    """Of batches that the student writes; the others are of the data. GKD's lambda."""
    temperature: float = Field(default=1.0, gt=0)
    """At which the student's tokens are drawn."""


def check(task: Task, params: Begun) -> None:
    """Refuse a task of which nothing is written.

    Raises:
        ConfigError: its targets are not tokens, or beginnings are whole texts.
    """
    if task.targets not in WRITTEN:
        raise ConfigError(
            f"way.name is for models that write, and task {task.name!r} has {task.targets}: choose "
            "'sequence-to-sequence' or 'language-model', or another way, such as 'offline'"
        )
    writing.check_prompt(task, params.prompt, key="way.prompt")


def written_by(model: nn.Module, x: Rows, task: Task, prompt: int) -> Samples:
    """Records whose targets a model wrote of their beginnings, each token the likeliest.

    Args:
        model: its mode is left as it was.
        x: N records.
        task: of `tokens` or `next-tokens`.
        prompt: see `writing.begun`.
    """
    shown = writing.begun(whole(x), task, prompt)
    with evaluate.evaluating(model):
        return Samples(*writing.records(writing.write(model, shown, task), shown, task))


def _told(run: StudentRun, prompt: int) -> Samples:
    """What the teacher writes of the student's training records, in the student's tokens."""
    teacher, (theirs, *_) = run.teachers[0], run.shares.teachers
    if not run.shares.shown:
        return written_by(teacher, run.data.train.x, run.task, prompt)
    shown = writing.begun(whole(run.shown), run.teachers_task, prompt)
    with evaluate.evaluating(teacher):
        rows = writing.write(teacher, shown, run.teachers_task)
    return retold(rows, shown, theirs, run.data)


def learn_by_sequences(run: StudentRun, params: SequenceLevel) -> nn.Module:
    """The way `sequence-level`, Kim & Rush 2016, arXiv:1606.07947.

    The teacher writes once of each training record; the student learns these texts, which are read
    anew where it has another tokeniser.
    """
    student, likelihood = run.student(), run.task.likelihood

    def train(on_epoch: OnEpoch) -> None:
        data = run.data.train
        told = _told(run, params.prompt)

        def loss(model: nn.Module, x: Tensor, y: Tensor, true_x: Tensor, true_y: Tensor) -> Tensor:
            value = likelihood.mean_nll(forward_with(model, x, ())[LOGITS], y)
            if not params.labels:
                return value
            true = likelihood.mean_nll(forward_with(model, true_x, ())[LOGITS], true_y)
            return value + params.labels * true

        rows = (told.x, told.y, data.x, data.y)
        batches = run.stream("student batches")
        fit(student, rows, loss, run.training, batches, on_epoch=on_epoch)

    run.stage("student", student, train, epochs=run.training.epochs)
    return student


def learn_on_policy(run: StudentRun, params: OnPolicy) -> nn.Module:
    """The way `on-policy`, GKD, Agarwal et al. 2024, arXiv:2306.13649.

    Of a share of batches the student writes the texts itself, by draws, and the teacher grades each
    of their tokens: `[[knowledge]]` says how. So it learns where its own writing leads it.
    """
    student, teacher, task = run.student(), run.teachers[0], run.task

    def train(on_epoch: OnEpoch) -> None:
        terms = run.terms(student, teacher)
        draws = run.stream("student writing")

        def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            own = float(torch.rand((), generator=draws)) < params.student_share
            if own:
                x, y = (each.to(x.device) for each in _drawn(model, x, task, params, draws))
            with torch.no_grad():
                theirs = forward_with(teacher, x, terms.teacher)
            ours = forward_with(model, x, terms.student)
            graded = terms(ours, theirs, y)
            if own or not params.labels:
                return graded
            return graded + params.labels * task.likelihood.mean_nll(ours[LOGITS], y)

        learned = [*student.parameters(), *terms.learned.parameters()]
        fit(
            student,
            (run.data.train.x, run.data.train.y),
            loss,
            run.training,
            run.stream("student batches"),
            optimiser=optim.build(learned, run.training),
            on_epoch=terms.following(on_epoch),
        )

    run.stage("student", student, train, epochs=run.training.epochs)
    return student


def _drawn(
    model: nn.Module, x: Tensor, task: Task, params: OnPolicy, draws: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What the student writes of a batch, as inputs and targets."""
    shown = writing.begun(x.cpu(), task, params.prompt)
    with evaluate.evaluating(model):
        own = writing.write(model, shown, task, generator=draws, temperature=params.temperature)
    return writing.records(own, shown, task)
