"""What a model of a later stage is held to: what the model before it answers.

Learning without Forgetting, Li & Hoiem 2016, arXiv:1606.09282.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from fedkd.learning.forms.base import logits
from fedkd.learning.forms.terms import Term, Terms
from fedkd.models.layers import LOGITS
from fedkd.tasks import Task
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
