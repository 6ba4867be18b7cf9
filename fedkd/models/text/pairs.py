"""Pairs of texts: one model of a text, asked of both."""

from dataclasses import replace

from torch import Tensor, nn

from fedkd.models import call
from fedkd.tasks import Task


class Pairs(nn.Module):
    """Token numbers (N, 2, L) -> answers (N, 2, D).

    Args:
        each: token numbers (N, L) -> answers (N, D).
    """

    def __init__(self, each: nn.Module) -> None:
        super().__init__()
        self.each = each

    def forward(self, x: Tensor) -> Tensor:
        """Answers (N, 2, D)."""
        answers = call.found_in(self.each, self.each(x.flatten(0, 1)))
        return answers.reshape(len(x), 2, -1)


def of_one(task: Task) -> Task | None:
    """Of a task of pairs of texts what is asked of each text; None of any other task."""
    pair = task.vocabulary is not None and task.targets == "identities" and len(task.answer) == 2
    return replace(task, inputs=task.inputs[1:], answer=task.answer[1:]) if pair else None
