"""Continual learning: one stage of data after another, without forgetting those before.

Learning without Forgetting, Li & Hoiem 2016, arXiv:1606.09282: the model as it came answers the new
stage's inputs, and the student is held to that. With exemplars, as in iCaRL, Rebuffi et al. 2017,
arXiv:1611.07725, it is held to that on a few kept records of earlier stages too.
"""

import copy

import torch
from pydantic import Field, NonNegativeInt
from torch import nn

from fedkd.config import Distillation, Frozen
from fedkd.data.stream import stages
from fedkd.data.types import Samples, joined
from fedkd.learning import offline, retention
from fedkd.learning.herding import chosen
from fedkd.learning.loop import OnEpoch
from fedkd.learning.ways.base import StudentRun
from fedkd.tasks.stages import Stages

PAPERS = "Li & Hoiem 2016, arXiv:1606.09282; Rebuffi et al. 2017, arXiv:1611.07725"
STAGE, FINETUNED = "stage ", "finetuned "
"""How the trainings of the student begin, and those of the one that forgets; a number follows."""


class Continual(Frozen):
    """Parameters of `continual`."""

    weight: float = Field(default=1.0, ge=0)
    """Of the distance from the answers of the model as it came; 0: only exemplars remind."""
    temperature: float = Field(default=2.0, gt=0)
    """Of both models' answers; Li & Hoiem's."""
    exemplars: NonNegativeInt = 0
    """How many records of earlier stages are kept, in all; as many of each class, by herding."""
    finetuned: bool = True
    """Whether a student that is reminded of nothing learns as well, to be compared with."""


def unlike_stream(name: str, distillation: Distillation) -> str:
    """Why a way of this name and a stream, or none, do not go together."""
    if distillation.data.stream is None:
        return (
            f"way {name!r} learns what comes in stages: add a section [data.stream], such as "
            "by = 'classes', stages = 5"
        )
    return (
        f"data.stream has data come in stages, and way {name!r} learns from all of it at once: "
        "choose way 'continual', or leave it out"
    )


def learn(run: StudentRun, params: Continual) -> nn.Module:
    """The way `continual`: the student after the last stage."""
    found = stages(run.distillation.data.stream, run.data.class_names, run.data.targets)
    if found is None:
        raise ValueError("Expected a stream; `ways.resolve` refuses a distillation without one.")
    found.check_exemplars(params.exemplars, run.task, key="way.exemplars")
    if params.finetuned:
        forgetful = params.model_copy(update={"weight": 0.0, "exemplars": 0})
        _through_all(run, forgetful, found, FINETUNED)
    return _through_all(run, params, found, STAGE)


def _through_all(run: StudentRun, params: Continual, found: Stages, title: str) -> nn.Module:
    student: nn.Module = run.student()
    kept: list[Samples] = []
    for stage in range(len(found)):
        fresh = run.data.train.of_stage(stage)
        _one(run, params, student, joined(fresh, *kept), (found, stage), f"{title}{stage + 1}")
        if (most := params.exemplars) and stage + 1 < len(found):
            rows = chosen(student, fresh, run.data.targets, most)
            kept += [fresh.subset(each) for each in rows.values()]
            share = most // len(kept)
            kept = [each.subset(torch.arange(min(share, len(each)))) for each in kept]
    return student


def _one(
    run: StudentRun,
    params: Continual,
    student: nn.Module,
    samples: Samples,
    place: tuple[Stages, int],
    name: str,
) -> None:
    """One stage's training."""
    found, stage = place
    before = copy.deepcopy(student).eval().requires_grad_(requires_grad=False)
    how = params.model_dump(include={"weight", "temperature"})
    likelihood = run.task.likelihood
    if found.of_class is not None and (params.weight or params.exemplars):
        counts = torch.bincount(samples.y, minlength=run.task.classes)
        likelihood = retention.likelihood(found, run.task, counts)

    def train(on_epoch: OnEpoch) -> None:
        offline.teach(
            student,
            before,
            retention.terms(found, run.task, stage, **how).to(run.device),
            samples,
            run.training,
            run.stream(f"stage {stage + 1} batches"),
            likelihood=likelihood,
            on_epoch=on_epoch,
        )

    run.stage(name, student, train, epochs=run.training.epochs)
