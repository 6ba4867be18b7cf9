"""Ways to learn by name: how one party's student learns.

A way is a function of a lesson; `BUILT_IN` is the whole list.
"""

from functools import partial
from typing import Any

import torch
from torch import nn

from fedkd.config import Distillation, Frozen, WayChoice, validate
from fedkd.errors import ConfigError
from fedkd.learning import offline
from fedkd.learning.data_free import adi, dafl, dfad, synthesis
from fedkd.learning.dp import distil
from fedkd.learning.loop import OnEpoch
from fedkd.learning.ways import (
    born_again,
    continual,
    data_free,
    early_exits,
    mean_teacher,
    multi_teacher,
    mutual,
    privileged,
    writing,
)
from fedkd.learning.ways.base import FromLabels, StudentRun
from fedkd.learning.ways.injection import Injection, inject
from fedkd.learning.ways.kind import Way
from fedkd.names import unknown
from fedkd.tasks import Ask, Task


def _injected(
    student: nn.Module,
    teachers: tuple[nn.Module, ...],
    params: Injection,
    shape: tuple[int, ...],
    generator: torch.Generator,
) -> nn.Module:
    chosen = params.model_dump(exclude={"labels"})
    return inject(student, teachers[0], shape, generator, **chosen)


def _taught(run: StudentRun, params: FromLabels) -> nn.Module:
    """By a finished teacher and by labels, with the forms of `[[knowledge]]`."""
    student, teacher = run.student(), run.teachers[0]

    def train(on_epoch: OnEpoch) -> None:
        terms = run.terms(student, teacher)
        data, how = run.data.train, run.training
        ends: dict[str, Any] = {
            "labels": params.labels,
            "likelihood": run.task.likelihood,
            "shown": run.shown,
            "on_epoch": on_epoch,
        }
        if (paid := run.private) is None:
            batches = run.stream("student batches")
            offline.teach(student, teacher, terms, data, how, batches, **ends)
            return
        ends["like"] = run.data.test.x
        noisy = partial(distil.teach, student, teacher, terms, data, how, paid.noise, **ends)
        paid.pay("student", student, noisy)

    run.stage("student", student, train, epochs=run.training.epochs)
    return student


def _classes(_params: Frozen) -> dict[Ask, str]:
    return {"classes": "it"}


BUILT_IN: dict[str, Way] = {
    "offline": Way(
        "Hinton et al. 2015, arXiv:1503.02531",
        _taught,
        FromLabels,
        teachers=(1, 1),
        forms="must",
        private=True,
        unlike_views=True,
        unlike_tokens=True,
        augments=True,
    ),
    "injection": Way(
        "compare Xu et al. 2020, arXiv:2002.02925",
        _taught,
        Injection,
        teachers=(1, 1),
        forms="may",
        remake=_injected,
        private=True,
        augments=True,
    ),
    "mutual": Way(
        "Zhang et al. 2018, arXiv:1706.00384",
        mutual.learn,
        mutual.Mutual,
        check=mutual.check,
        augments=True,
    ),
    "born-again": Way(
        "Furlanello et al. 2018, arXiv:1805.04770", born_again.learn, born_again.BornAgain
    ),
    "early-exits": Way(
        "Zhang et al. 2019, arXiv:1905.08094",
        early_exits.learn,
        early_exits.EarlyExits,
        remake=early_exits.remake,
        augments=True,
    ),
    "multi-teacher": Way(
        "compare You et al. 2017, KDD",
        multi_teacher.learn,
        multi_teacher.MultiTeacher,
        teachers=(2, 64),
        unlike_views=True,
        share=multi_teacher.share,
        asks=multi_teacher.asks,
    ),
    "continual": Way(continual.PAPERS, continual.learn, continual.Continual, augments=True),
    "mean-teacher": Way(
        "Tarvainen & Valpola 2017, arXiv:1703.01780",
        mean_teacher.learn,
        mean_teacher.MeanTeacher,
        share=mean_teacher.share,
        check=mean_teacher.check,
    ),
    "privileged": Way(
        "Lopez-Paz et al. 2016, arXiv:1511.03643",
        privileged.learn,
        privileged.PrivilegedTeachers,
        teachers=(1, 64),
        forms="may",
        share=privileged.share,
        check=privileged.check,
    ),
    "sequence-level": Way(
        "Kim & Rush 2016, arXiv:1606.07947",
        writing.learn_by_sequences,
        writing.SequenceLevel,
        teachers=(1, 1),
        check=writing.check,
        unlike_views=True,
        unlike_tokens=True,
    ),
    "on-policy": Way(
        "Agarwal et al. 2024, arXiv:2306.13649",
        writing.learn_on_policy,
        writing.OnPolicy,
        teachers=(1, 1),
        forms="must",
        check=writing.check,
    ),
    "dfad": Way(
        "Fang et al. 2019, arXiv:1912.11006",
        data_free.learn_by_dfad,
        dfad.Adversarial,
        teachers=(1, 1),
        check=synthesis.check,
    ),
    "dafl": Way(
        "Chen et al. 2019, arXiv:1904.01186",
        data_free.learn_by_dafl,
        dafl.DataFreeLearning,
        teachers=(1, 64),
        check=synthesis.check,
        asks=_classes,
    ),
    "adi": Way(
        "Yin et al. 2020, arXiv:1912.08795",
        data_free.learn_by_adi,
        adi.AdaptiveDeepInversion,
        teachers=(1, 64),
        check=synthesis.check,
        asks=_classes,
    ),
}


def find(name: str) -> Way:
    """A way by name.

    Raises:
        ConfigError: there is none.
    """
    if name not in BUILT_IN:
        raise ConfigError(unknown("way to learn", name, BUILT_IN))
    return BUILT_IN[name]


def resolve(distillation: Distillation) -> tuple[Way, Frozen, Distillation]:
    """The way, its parameters, and the distillation with these complete.

    Raises:
        ConfigError: an unknown way or parameter, or a distillation that the way cannot run.
    """
    name = distillation.way.name
    way = find(name)
    params = validate(way.Params, distillation.way.parameters, prefix="way.")
    _check(way, name, distillation)
    complete = params.model_dump(mode="json", exclude_none=True)
    choice = WayChoice.model_validate({"name": name, **complete})
    return way, params, distillation.model_copy(update={"way": choice})


def check_task(way: Way, params: Frozen, name: str, task: Task) -> None:
    """Refuse a task that does not offer what a way asks.

    Raises:
        ConfigError: names who asks what, and the ways that ask nothing.
    """
    asked = {} if way.asks is None else way.asks(params)
    for ask, who in asked.items():
        if ask not in task.offers:
            fit = ", ".join(each for each, other in BUILT_IN.items() if other.asks is None)
            raise ConfigError(
                f"way {name!r} cannot learn task {task.name!r}: {who} asks for {ask}, which the "
                f"task does not offer; change that, or choose among {fit}"
            )


def _check(way: Way, name: str, distillation: Distillation) -> None:
    found, (fewest, most) = len(distillation.teachers), way.teachers
    if not fewest <= found <= most:
        expected = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise ConfigError(
            f"way {name!r} learns from {expected} teachers: found {found} [[teachers]] sections"
        )
    if (distillation.data.stream is None) == (way.learn is continual.learn):
        raise ConfigError(continual.unlike_stream(name, distillation))
    if way.forms == "must" and not distillation.knowledge:
        raise ConfigError(
            f"way {name!r} needs to know what is passed on: add a section [[knowledge]], such as "
            "name = 'kd', or 'divergence' where a task has no classes"
        )
    if distillation.knowledge and found > 1:
        raise ConfigError(
            f"[[knowledge]] compares the student with one teacher: found {found} [[teachers]] "
            "sections; leave out the others, or [[knowledge]]"
        )
    if way.forms == "no" and distillation.knowledge:
        raise ConfigError(f"way {name!r} takes no [[knowledge]]: it says itself what is passed on")
    if distillation.privacy is not None and not way.private:
        fit = ", ".join(name for name, each in BUILT_IN.items() if each.private)
        raise ConfigError(
            f"way {name!r} cannot run under [privacy]: it does not learn by DP-SGD; choose among "
            f"{fit}, or leave out [privacy]"
        )
    if distillation.student.training.augment:
        _check_augment(way, name, distillation)


def _check_augment(way: Way, name: str, distillation: Distillation) -> None:
    if not way.augments:
        fit = ", ".join(name for name, each in BUILT_IN.items() if each.augments)
        raise ConfigError(
            f"student.training.augment changes inputs, and way {name!r} learns from answers to "
            f"them as they are, or makes its own; choose among {fit}, or leave it out"
        )
    if distillation.privacy is not None:
        raise ConfigError(
            "student.training.augment changes inputs, and under [privacy] the teacher answers to "
            "them as they are: leave one of the two out"
        )
