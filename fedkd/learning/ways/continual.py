"""Continual learning: one stage of data after another, without forgetting those before.

Learning without Forgetting, Li & Hoiem 2016, arXiv:1606.09282: the model as it came answers the new
stage's inputs, and the student is held to that. With exemplars, as in iCaRL, Rebuffi et al. 2017,
arXiv:1611.07725, it is held to that on a few kept records of earlier stages too.
"""

import copy
from dataclasses import dataclass, replace

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.data.stream import stages
from fedkd.data.types import Samples
from fedkd.learning import offline, retention
from fedkd.learning.herding import exemplars
from fedkd.learning.loop import OnEpoch
from fedkd.learning.supervised import balanced_offset
from fedkd.learning.ways.base import StudentRun
from fedkd.rows import concat
from fedkd.tasks import Likelihood
from fedkd.tasks.stages import Stages

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


@dataclass(frozen=True)
class _Memory:
    """Records of earlier stages, in the order in which they would be kept, by class."""

    kept: tuple[Samples, ...] = ()

    def cut(self, most: int) -> "_Memory":
        """As many of each, `most` in all."""
        share = most // max(1, len(self.kept))
        return _Memory(
            tuple(each.subset(torch.arange(min(share, len(each)))) for each in self.kept)
        )

    def beside(self, samples: Samples) -> Samples:
        """Samples, and after them what is kept."""
        parts = [samples, *(each for each in self.kept if len(each))]
        return Samples(concat([part.x for part in parts]), torch.cat([part.y for part in parts]))


def learn(run: StudentRun, params: Continual) -> nn.Module:
    """The way `continual`: the student after the last stage."""
    if params.finetuned:
        forgetful = params.model_copy(update={"weight": 0.0, "exemplars": 0})
        _through_all(run, forgetful, FINETUNED)
    return _through_all(run, params, STAGE)


def _through_all(run: StudentRun, params: Continual, title: str) -> nn.Module:
    found = stages(run.distillation.data.stream, run.data.class_names, run.data.targets)
    if found is None:
        raise ValueError("Expected a stream; `ways.resolve` refuses a distillation without one.")
    student, memory = run.student(), _Memory()
    for stage in range(len(found)):
        fresh = run.data.train.of_stage(stage)
        _one(run, params, student, memory.beside(fresh), (found, stage), f"{title}{stage + 1}")
        if params.exemplars:
            groups = _by_class(fresh) if run.data.targets == "classes" else [fresh]
            chosen = (exemplars(student, each, params.exemplars) for each in groups)
            memory = _Memory((*memory.kept, *chosen)).cut(params.exemplars)
    return student


def _balanced(likelihood: Likelihood, samples: Samples, classes: int) -> Likelihood:
    """Free of how frequent classes are: new ones have all their records, earlier ones a few."""
    offset = balanced_offset(torch.bincount(samples.y, minlength=classes))

    def mean_nll(answers: Tensor, targets: Tensor) -> Tensor:
        return likelihood.mean_nll(answers + offset.to(answers.device), targets)

    return replace(likelihood, mean_nll=mean_nll)


def _by_class(samples: Samples) -> list[Samples]:
    classes = sorted(set(samples.y.tolist()))
    return [samples.subset((samples.y == each).nonzero()[:, 0]) for each in classes]


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
    if found.scenario == "class-incremental" and params.weight:
        likelihood = _balanced(likelihood, samples, run.task.classes)

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
