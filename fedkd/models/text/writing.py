"""What a model of sequences writes, token by token."""

import torch
from torch import Tensor, nn

from fedkd.models import call
from fedkd.models.text.base import words_of
from fedkd.tasks import Task


def write(model: nn.Module, x: Tensor, task: Task) -> Tensor:
    """What a model writes of texts, each token the likeliest after those before it.

    Args:
        model: of a task of `tokens`, in evaluation mode.
        x: int64 (N, 2 L - 1), texts (N, L) and what is not looked at.
        task: whose vocabulary and length it is.

    Returns:
        int64 (N, L - 1) on the CPU: tokens without the start, with the end, then padding.
    """
    words, length = words_of(task), task.answer[0]
    shown = x.clone()
    shown[:, length + 1 :] = words.padding
    shown[:, length + 1] = words.start
    written = torch.full((len(x), length), words.padding)
    ended = torch.zeros(len(x), dtype=torch.bool)
    with torch.no_grad():
        for place in range(length):
            token = call.answer(model, shown)[:, place].argmax(dim=-1).cpu()
            written[:, place] = torch.where(ended, words.padding, token)
            ended |= token == words.end
            if ended.all():
                break
            if place + 1 < length:
                shown[:, length + 2 + place] = written[:, place]
    return written
