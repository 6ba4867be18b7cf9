"""What a model of sequences writes, token by token, and what is learned from it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedkd import devices
from fedkd.errors import ConfigError
from fedkd.models import call
from fedkd.models.text.base import words_of
from fedkd.models.text.seq2seq import Memory, Seq2Seq
from fedkd.tasks import Task
from fedkd.tasks.likelihoods.categorical import IGNORED

_AT_ONCE = 128
"""How many texts are written side by side."""

_Next = Callable[[Tensor, Tensor], Tensor]
"""Numbers of rows (n,) and the tokens before, (n, K) -> logits of the next one, (n, V)."""


def write(
    model: nn.Module,
    x: Tensor,
    task: Task,
    *,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """What a model writes: another text of each of a task of `tokens`, the rest of `next-tokens`.

    Marks of padding and start are never written.

    Args:
        model: in evaluation mode.
        x: int64 (N, *inputs). Of `tokens` texts (N, L), and what stands behind is not looked at; of
            `next-tokens` beginnings, at least one token of each, padded.
        task: whose vocabulary and length it is.
        generator: from which each token is drawn; None: the likeliest is taken.
        temperature: T > 0, by which logits are divided before a token is drawn.

    Returns:
        int64 on the CPU, padding after the end: of `tokens` what follows the start, (N, L - 1), of
        `next-tokens` whole texts with their beginnings, (N, L).
    """

    def pick(logits: Tensor) -> Tensor:
        if generator is None:
            return logits.argmax(dim=-1)
        chances = (logits / temperature).softmax(dim=-1)
        return torch.multinomial(chances, 1, generator=generator)[:, 0]

    with torch.no_grad():
        parts = [_continued(model, part.cpu(), task, pick) for part in torch.split(x, _AT_ONCE)]
    return torch.cat(parts)


def check_prompt(task: Task, tokens: int, *, key: str) -> None:
    """Refuse beginnings that leave nothing of a text to be written.

    Raises:
        ConfigError: they are as long as a text.
    """
    if task.targets == "next-tokens" and tokens >= (length := task.inputs[-1]):
        raise ConfigError(
            f"{key} is {tokens}, and a text of task {task.name!r} has {length} tokens: expected "
            "fewer, so that there is something to write"
        )


def begun(x: Tensor, task: Task, tokens: int) -> Tensor:
    """Inputs of which the first tokens alone are shown, at most so many; of `tokens` as they are.

    Args:
        x: int64 (N, *inputs).
        task: see `write`.
        tokens: at least 1.
    """
    if task.targets == "tokens":
        return x
    return torch.cat([x[:, :tokens], torch.full_like(x[:, tokens:], words_of(task).padding)], dim=1)


def records(written: Tensor, x: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """What was written as inputs and targets, as if it had been in a table.

    Args:
        written: what `write` gave of `x`.
        x: int64 (N, *inputs); of `next-tokens` the beginnings, whose tokens are no targets.
        task: see `write`.

    Returns:
        Inputs int64 (N, *inputs) and targets int64 (N, *targets), `IGNORED` after the end.
    """
    words, reads = words_of(task), task.targets == "tokens"
    start = torch.full_like(written[:, :1], words.start)
    whole = torch.cat([start, written], dim=1) if reads else written
    before, y = whole[:, :-1], whole[:, 1:]
    ends = (y == words.end).long()
    counted = ends.cumsum(dim=1) - ends == 0  # up to the first end
    if words.padding != words.end:
        counted &= y != words.padding
    before = before.masked_fill(~counted, words.padding)
    if reads:
        source = x[:, : x.shape[1] - y.shape[1]]
        return torch.cat([source, before], dim=1), y.masked_fill(~counted, IGNORED)
    given = torch.cat([x[:, 1:] != words.padding, torch.zeros_like(counted[:, :1])], dim=1)
    return before, y.masked_fill(~counted | given, IGNORED)


def _continued(model: nn.Module, x: Tensor, task: Task, pick: Callable[[Tensor], Tensor]) -> Tensor:
    words, length, reads = words_of(task), task.answer[0], task.targets == "tokens"
    ids = torch.full((len(x), length + 1), words.padding)
    ids[:, 0] = words.start
    if not reads:
        ids[:, : x.shape[1]] = x
    given = ids != words.padding
    given[:, 0] = True
    following = _next(model, x, task)
    # Padding may be the mark of the end, as GPT-2's is.
    ended = ((ids[:, 1:] == words.end) & given[:, 1:]).any(dim=1)
    never = [mark for mark in (words.padding, words.start) if mark != words.end]
    for place in range(int(given.sum(dim=1).min()), length + 1):
        rows = torch.nonzero(~ended & ~given[:, place])[:, 0]
        if len(rows) == 0:
            continue
        logits = following(rows, ids[rows, :place])
        logits[:, never] = -torch.inf
        tokens = pick(logits)
        ids[rows, place] = tokens
        ended[rows[tokens == words.end]] = True
    return ids[:, 1:] if reads else ids


def _next(model: nn.Module, x: Tensor, task: Task) -> _Next:
    """What a model holds for likely next; one of fedkd's own reads a text once."""
    padding = words_of(task).padding
    if isinstance(model, Seq2Seq):
        device = devices.of(model)
        with devices.autocast(device):
            states, counted = model.encode(x[:, : x.shape[1] - task.answer[0]].to(device))

        def after(rows: Tensor, ids: Tensor) -> Tensor:
            there = rows.to(device)
            memory = Memory(states[there], counted[there])
            with devices.autocast(device):
                return devices.widened(model.decode(memory, ids.to(device))[:, -1]).cpu()

        return after

    def asked(rows: Tensor, ids: Tensor) -> Tensor:
        shown = x[rows]
        place = shown.shape[1] - task.answer[0]
        shown[:, place:] = padding
        shown[:, place : place + ids.shape[1]] = ids
        return call.answer(model, shown)[:, ids.shape[1] - 1].cpu()

    return asked
