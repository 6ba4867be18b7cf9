"""How a model learns a later stage: from labels, and held to what the model before it answers.

Learning without Forgetting, Li & Hoiem 2016, arXiv:1606.09282.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from fedkd.learning.forms.base import logits
from fedkd.learning.forms.terms import Term, Terms
from fedkd.learning.supervised import balanced_offset
from fedkd.models.layers import LOGITS
from fedkd.tasks import Likelihood, Task
from fedkd.tasks.stages import Stages


def terms(stages: Stages, task: Task, stage: int, *, weight: float, temperature: float) -> Terms:
    """What the model as it came passes on to one of stage `stage`, from 0; nothing to the first.

    Args:
        stages: of the stream.
        task: what is asked.
        stage: what is being learned.
        weight: of the distance from the answers of the model as it came; 0: nothing is passed on.
        temperature: T > 0, of both models' answers.
    """
    if not stage or not weight:
        return Terms([])
    distance = partial(stages.retention(task, stage), temperature=temperature)

    def compare(ours: Sequence[Tensor], theirs: Sequence[Tensor], _y: Tensor) -> Tensor:
        return distance(ours[0], theirs[0])

    return Terms([Term(weight, (LOGITS,), (LOGITS,), logits(compare))])


def likelihood(stages: Stages, task: Task, counts: Tensor) -> Likelihood:
    """By what a stage's labels are learned.

    Where an answer is one of all classes it is free of how frequent these are among what is learned
    from (`supervised.balanced_offset`): new ones have all their records, earlier ones a few
    exemplars or none, and would be unlearned by that alone.

    Args:
        stages: of the stream.
        task: what is asked.
        counts: how many records of each class there are, int64 (C,).
    """
    plain = task.likelihood
    if stages.scenario != "class-incremental":
        return plain
    offset = balanced_offset(counts)

    def shifted(answers: Tensor) -> Tensor:
        return answers + offset.to(answers.device)

    return replace(
        plain,
        nll=lambda answers, targets: plain.nll(shifted(answers), targets),
        mean_nll=lambda answers, targets: plain.mean_nll(shifted(answers), targets),
    )
