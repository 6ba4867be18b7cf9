"""Distil for one party: one configuration, one run folder."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from fedkd.clock import Notify
from fedkd.config import Distillation
from fedkd.data import sound
from fedkd.data.stream import stages
from fedkd.data.types import Dataset
from fedkd.devices import computing
from fedkd.learning import evaluate, supervised
from fedkd.learning.dp import sgd
from fedkd.learning.loop import OnEpoch
from fedkd.learning.ways import prepare
from fedkd.learning.ways.base import StudentRun, task_seen
from fedkd.learning.ways.continual import FINETUNED, STAGE
from fedkd.learning.ways.prepare import Prepared
from fedkd.privacy.ledger import fingerprint
from fedkd.reports import distil_report, shortfall
from fedkd.rng import stream
from fedkd.runs import examples, tokenizers
from fedkd.runs import spending as paying
from fedkd.runs.common import locked, resumable
from fedkd.runs.continual import about, learned
from fedkd.runs.distil_schema import PLAIN
from fedkd.runs.model_size import measure
from fedkd.runs.scores import shown_scores
from fedkd.runs.stages import StageFolder, StageRecorder
from fedkd.runs.student import Inputs
from fedkd.threads import one_intra_op_thread
from fedkd.tracking import following
from fedkd.tracking.following import tracked


def distil(
    distillation: Distillation,
    folder: Path,
    notify: Notify = lambda *_: None,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Run a distillation into a run folder, report and all.

    Args:
        distillation: what to run.
        folder: the run folder; it must not exist unless `resume` is on.
        notify: is told a stage, epochs done and epochs in all.
        resume: take up the stages that an earlier run finished.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        UsageError: the configuration or the folder will not do; nothing was written.
        BudgetError: the plan, on top of all that was spent before, is over the budget.
        FederationError: training diverged.
    """
    following.check(distillation)
    ready = prepare.prepare(distillation)
    distillation, train = ready.distillation, ready.shares.whole.train
    sound.look_over(ready.shares.whole)
    ledger = paying.ledger(distillation, folder)
    run = StageFolder(folder, distillation, ledger=ledger, device=ready.device)
    # Who has the digest of protected records can test guesses of them.
    data = fingerprint(train.x, train.y).hex() if distillation.privacy is None else "protected"
    with resumable(folder):
        run.open({"data": data, "weights": list(ready.digests)}, resume=resume)
        # How work is split among threads changes its last bits.
        with (
            locked(folder),
            tracked(distillation, folder) as look,
            one_intra_op_thread(),
            computing(distillation.engine.precision),
        ):
            notify = _both(notify, look)
            run.resume()
            spending = paying.commit(distillation, folder)
            run.name_files()
            teachers = _teachers(ready, run, notify)
            stage = StageRecorder(
                run, ready.data.test, ready.task.numbers, distillation.seed, notify
            )
            paid = None if spending is None else spending.private()
            fresh = partial(ready.student, teachers)
            student_run = StudentRun(
                distillation, ready.shares, teachers, stage, fresh, paid, ready.device
            )
            plain = _plain(student_run) if distillation.plain else None
            student = ready.way.learn(student_run, ready.params)
            summary = _summarise(ready, student_run, student, plain, run.records())
            summary["privacy"] = {"unit": "none"} if spending is None else spending.summary()
            tokenizers.keep(folder, ready.data.tokenizers)
            run.finish(student, summary)
            alike = () if ready.shares.shown else teachers  # who see what the student sees
            asked = {f"Teacher {n}": each for n, each in enumerate(alike, 1)}
            examples.write(folder, ready.task, ready.data.test, {**asked, "Student": student})
            distil_report.write(folder)
            shortfall.of_distillation(summary, distillation)
    return summary


def _both(notify: Notify, look: Callable[[], None]) -> Notify:
    """Tells whoever watches, and then trackers."""

    def told(phase: str, done: int, total: int) -> None:
        notify(phase, done, total)
        look()

    return told


def _teachers(ready: Prepared, run: StageFolder, notify: Notify) -> tuple[nn.Module, ...]:
    for number, model in enumerate(ready.teachers):
        given = ready.distillation.teachers[number].weights is not None
        # What has nothing to train is finished: a rule, or somebody's service behind a module.
        if given or not any(parameter.requires_grad for parameter in model.parameters()):
            continue
        training = ready.distillation.teachers[number].training

        def train(on_epoch: OnEpoch, number: int = number, model: nn.Module = model) -> None:
            seed, training = ready.distillation.seed, ready.distillation.teachers[number].training
            batches = stream(seed, purpose="teacher batches", client=number)
            data = ready.shares.teachers[number].train
            likelihood = ready.task.likelihood
            supervised.train(
                model, data, training, batches, likelihood=likelihood, on_epoch=on_epoch
            )

        seen = ready.shares.teachers[number]
        stage = StageRecorder(
            run,
            seen.test,
            task_seen(ready.distillation, ready.task, seen).numbers,
            ready.distillation.seed,
            notify,
        )
        stage(f"teacher {number}", model, train, epochs=training.epochs)
        model.requires_grad_(requires_grad=False)
    return ready.teachers


def _plain(student_run: StudentRun) -> nn.Module:
    """The student without a teacher: the same start, batches and budget."""
    student = student_run.plain_student()
    name, train, how = "plain student", student_run.data.train, student_run.training
    likelihood = student_run.task.likelihood

    def learn(on_epoch: OnEpoch) -> None:
        if (paid := student_run.private) is None:
            batches = student_run.stream("student batches")
            supervised.train(student, train, how, batches, likelihood=likelihood, on_epoch=on_epoch)
            return

        noisy = partial(
            sgd.train,
            student,
            train,
            how,
            paid.noise,
            loss=likelihood.nll,
            like=student_run.data.test.x,
            on_epoch=lambda epoch: on_epoch(epoch, math.nan),
        )
        paid.pay(name, student, noisy)

    student_run.stage(name, student, learn, epochs=how.epochs)
    return student


def _summarise(
    ready: Prepared,
    student_run: StudentRun,
    student: nn.Module,
    plain: nn.Module | None,
    records: list[dict[str, Any]],
) -> dict[str, Any]:
    """The figures that a run is compared by; shares are of 1."""
    distillation, task = ready.distillation, ready.task

    def figures(model: nn.Module, data: Dataset) -> dict[str, Any]:
        asked = task_seen(distillation, task, data)
        found = evaluate.score(model, data.test, asked.scores)
        scores = {score.figure: found[score.figure] for score in asked.scores}
        return {**scores, **measure(model, asked.blank)}

    student_figures = figures(student, ready.data)
    headline = task.headline
    plain_score = (
        None
        if plain is None
        else evaluate.score(plain, student_run.data.test, [headline])[headline.figure]
    )
    return {
        "name": distillation.name,
        **shown_scores(task),
        "way": distillation.way.name,
        "knowledge": [each.name for each in distillation.knowledge],
        "dataset": ready.data.name,
        "inputs": Inputs.of_splits(ready.shares).model_dump(mode="json"),
        "seed": distillation.seed,
        "student": {"model": str(distillation.student.model), **student_figures},
        "teachers": [
            {
                "model": str(spec.model),
                **figures(student_run.teachers[number], ready.shares.teachers[number]),
            }
            for number, spec in enumerate(distillation.teachers)
        ],
        "plain": plain_score,
        "gain": headline.gain(student_figures[headline.figure], plain_score),
        **({"own_tokens": True} if _own_tokens(ready) else {}),
        **_continual(student_run, records),
        "seconds": sum(each["seconds"] for each in records),
    }


def _own_tokens(ready: Prepared) -> bool:
    """Whether the headline is of tokens, and teachers have others than the student."""
    shares = ready.shares
    return bool(shares.whole.own and shares.shown) and ready.task.headline.written is None


def _continual(run: StudentRun, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was learned and forgotten stage by stage; nothing where data came in none."""
    found = stages(run.distillation.data.stream, run.data.class_names, run.data.targets)
    if found is None:
        return {}
    last = {each["stage"]: each["stages"] for each in records}  # of a training its last epoch
    headline = run.task.headline
    untrained = evaluate.by_stage(run.plain_student(), run.data.test, len(found), headline)

    def told(title: str) -> dict[str, Any]:
        matrix = [last[f"{title}{number}"] for number in range(1, len(found) + 1)]
        return learned(matrix, untrained, headline)

    compared: dict[str, Any] = {"joint": last[PLAIN]} if PLAIN in last else {}
    if f"{FINETUNED}1" in last:
        compared["finetuned"] = told(FINETUNED)
    return {"continual": about(found) | told(STAGE) | compared}
