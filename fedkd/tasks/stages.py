"""A task whose data comes in stages: which classes each has, and a head a stage.

The scenarios are those of van de Ven & Tolias 2019, arXiv:1904.07734.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from fedkd.errors import ConfigError
from fedkd.knowledge import label
from fedkd.tasks.base import Likelihood, Score, Task

Scenario = Literal["class-incremental", "task-incremental", "domain-incremental"]
"""What is asked after all stages: which of all classes a record has; which of its own stage's, the
stage being told; or the same in each stage."""
Retention = Callable[..., Tensor]
"""(student, teacher, temperature=T) -> (N,): how far a student's answers (N, *A) to what earlier
stages taught are from those of a teacher who remembers them, in nats times T^2."""

_NEVER = torch.finfo(torch.float32).min
"""The logit of what is out of the question; finite, so that no difference of two is NaN."""


@dataclass(frozen=True, eq=False)
class Stages:
    """The stages of a stream.

    Attributes:
        scenario: what is asked of a model after all of them.
        names: of each stage, such as `"cat, dog"`.
        of_class: int64 (C,), the stage of each class; None where each has all classes.
        rounds: how many rounds of a federation each lasts; the last one lasts to the end.
    """

    scenario: Scenario
    names: tuple[str, ...]
    of_class: Tensor | None = None
    rounds: int = 1

    def at(self, round: int) -> int:
        """The stage of a round, from 0; rounds count from 1."""
        return min((round - 1) // self.rounds, len(self) - 1)

    def __len__(self) -> int:
        return len(self.names)

    def check_exemplars(self, count: int, task: Task, *, key: str) -> None:
        """Refuse exemplars that are too few for one of each class of each stage, or else of each.

        Args:
            count: how many are to be kept in all; 0: none.
            task: what is asked.
            key: where the configuration says it.

        Raises:
            ConfigError: after the last but one stage some would have none.
        """
        last, each = len(self) - 1, "class"
        if self.of_class is not None:
            least = int((self.of_class < last).sum())
        elif task.targets == "classes":
            least, each = last * task.classes, "stage's class"
        else:
            least, each = last, "stage"
        if 0 < count < least:
            raise ConfigError(
                f"{key} is {count}: expected at least {least}, one of each earlier {each}, or 0 "
                "for none"
            )

    def asked(self, task: Task) -> Task:
        """The task as the scenario asks it.

        With a head a stage, an answer speaks of a record by the logits of its own stage's classes
        alone. Nothing else may be asked of such an answer by who takes it for one over all classes,
        so the task no longer offers them.
        """
        if self.scenario != "task-incremental" or self.of_class is None:
            return task
        return replace(
            task,
            likelihood=_with_heads(task.likelihood, self.of_class),
            scores=tuple(_of_heads(score, self.of_class) for score in task.scores),
            offers=task.offers - {"classes", "categorical"},
        )

    def retention(self, task: Task, stage: int) -> Retention:
        """By what a student of one stage is held to a teacher of those before.

        Li & Hoiem 2016, arXiv:1606.09282: each earlier stage's head to the teacher's own. With one
        head for all classes, the logits of all earlier ones together, as iCaRL's authors have it
        (arXiv:1611.07725). Where each stage has all classes, the task's own divergence.
        """
        if self.of_class is None:
            return task.likelihood.divergence
        groups = [(self.of_class == each).nonzero()[:, 0] for each in range(stage)]
        if self.scenario == "class-incremental":
            groups = [torch.cat(groups)]
        return _by_groups(groups)


def _by_groups(groups: list[Tensor]) -> Retention:
    def divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        return torch.stack(
            [
                label.kd(student[..., each], teacher[..., each], temperature=temperature)
                for each in (group.to(student.device) for group in groups)
            ]
        ).sum(dim=0)

    return divergence


def _own_head(answers: Tensor, targets: Tensor, of_class: Tensor) -> Tensor:
    """Logits (N, C), those of other stages than the target's out of the question."""
    of_class = of_class.to(answers.device)
    return answers.masked_fill(of_class != of_class[targets].unsqueeze(-1), _NEVER)


def _with_heads(likelihood: Likelihood, of_class: Tensor) -> Likelihood:
    heads = [(of_class == each).nonzero()[:, 0] for each in sorted(set(of_class.tolist()))]
    return replace(
        likelihood,
        nll=lambda answers, y: likelihood.nll(_own_head(answers, y, of_class), y),
        mean_nll=lambda answers, y: likelihood.mean_nll(_own_head(answers, y, of_class), y),
        divergence=_by_groups(heads),
    )


def _of_heads(score: Score, of_class: Tensor) -> Score:
    def tally(answers: Tensor, targets: Tensor) -> Tensor:
        return score.tally(_own_head(answers, targets, of_class), targets)

    return replace(score, tally=tally)
