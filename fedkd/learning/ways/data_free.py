"""The ways without data: a student learns from images that are made from its teachers."""

from functools import partial

from torch import nn

from fedkd.knowledge import label
from fedkd.learning.data_free import adi, dafl, dfad, objectives
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.loop import OnEpoch
from fedkd.learning.ways.base import StudentRun
from fedkd.models.generators import build_generator


def learn_by_dafl(run: StudentRun, params: dafl.DataFreeLearning) -> nn.Module:
    """The way `dafl`."""
    student = run.student()
    how = run.training.model_copy(update={"batch_size": params.batch_size})

    def teach(on_epoch: OnEpoch) -> None:
        maker = build_generator(
            run.data.shape,
            latent=params.latent,
            width=params.width,
            generator=run.stream("generator model"),
        ).to(run.device)
        with Ensemble(run.teachers) as ensemble:
            dafl.train(
                student,
                ensemble,
                maker,
                partial(objectives.dafl, activation=params.activation, entropy=params.entropy),
                partial(label.kd, temperature=params.temperature),
                how,
                run.stream("synthesis"),
                classes=run.data.classes,
                steps=params.steps,
                latent=params.latent,
                learning_rate=params.learning_rate,
                on_epoch=on_epoch,
            )

    run.stage("student", student, teach, epochs=how.epochs)
    return student


def learn_by_adi(run: StudentRun, params: adi.AdaptiveDeepInversion) -> nn.Module:
    """The way `adi`."""
    student, data = run.student(), run.data

    def teach(on_epoch: OnEpoch) -> None:
        with Ensemble(run.teachers) as ensemble:
            adi.train(
                student,
                ensemble,
                params,
                run.training,
                run.stream,
                shape=data.shape,
                classes=data.classes,
                on_epoch=on_epoch,
            )

    run.stage("student", student, teach, epochs=run.training.epochs)
    return student


def learn_by_dfad(run: StudentRun, params: dfad.Adversarial) -> nn.Module:
    """The way `dfad`."""
    student, teacher = run.student(), run.teachers[0]

    def teach(on_epoch: OnEpoch) -> None:
        maker = build_generator(
            run.data.shape,
            latent=params.latent,
            width=params.width,
            generator=run.stream("generator model"),
        ).to(run.device)
        how, draws = run.training, run.stream("synthesis")
        dfad.train(student, teacher, maker, params, how, draws, on_epoch=on_epoch)

    run.stage("student", student, teach, epochs=run.training.epochs)
    return student
