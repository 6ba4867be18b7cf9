"""Inputs that a model is tried out on, where its behaviour is checked before anybody relies on it.

They are drawn, or public, or test rows, which nothing protects: whether a model is accepted, and
what an error says, tells of no record that is learned from.
"""

import torch
from torch import Tensor, nn

from fedkd.models import call
from fedkd.rows import Rows, one
from fedkd.tasks import Vocabulary

_LARGE = 1e6
_EXTREMES = {
    "of zeros": (9, 0.0),
    "all positive": (3, 1.0),
    "all negative": (3, -1.0),
    "very large": (2, _LARGE),
    "very large and negative": (2, -_LARGE),
}
"""How many neighbours of each kind, and what they are full of; a few make another batch size."""


def inputs(
    model: nn.Module, shape: tuple[int, ...], like: Rows | None = None, *, each: int = 2
) -> Tensor:
    """A few inputs of each kind that the model takes: like the data, of both signs, numbers 0 or 1.

    An embedding takes whole numbers only, and most models take anything.

    Args:
        model: is called, in the mode that it is in.
        shape: of one input.
        like: public or test inputs (N, *shape) that look like the data; None: there are none.
        each: how many of a kind, >= 2; of `like` no more than there are.

    Returns:
        (M, *shape), M >= 1, those like the data first.

    Raises:
        Exception: what the model raises of inputs like the data, or where it takes no others.
    """
    draws = torch.Generator().manual_seed(0)
    kinds = [
        torch.randn(each, *shape, generator=draws),
        torch.randint(2, (each, *shape), generator=draws).float(),
    ]
    taken: list[Tensor] = []
    if like is not None and len(like):
        taken.append(one(like[torch.linspace(0, len(like) - 1, min(each, len(like))).long()]))
        call.answer(model, taken[0])
    failures = [_failure(model, kind) for kind in kinds]
    taken += [kind for kind, failure in zip(kinds, failures, strict=True) if failure is None]
    if not taken and failures[0] is not None:
        raise failures[0]
    return torch.cat(taken)


def texts(words: Vocabulary, shape: tuple[int, ...], *, count: int) -> Tensor:
    """Drawn token numbers of texts of all lengths, int64 (count, *shape), padded at the end."""
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(words.size, (count, *shape), generator=draws)
    lengths = torch.randint(1, shape[-1] + 1, (count, *shape[:-1], 1), generator=draws)
    return ids.masked_fill(torch.arange(shape[-1]) >= lengths, words.padding)


def neighbours(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Extreme inputs to stand beside others in a batch, by what they are: (M, *shape).

    A model that decides something by the mean, the largest or the smallest of a batch decides
    otherwise beside them. Left out is what the model does not take even by itself.
    """
    extremes = {
        name: torch.full((rows, *shape), level) for name, (rows, level) in _EXTREMES.items()
    }
    return {name: x for name, x in extremes.items() if _failure(model, x) is None}


def takes(model: nn.Module, x: Tensor) -> bool:
    """Whether a model answers such inputs at all."""
    return _failure(model, x) is None


def _failure(model: nn.Module, x: Tensor) -> Exception | None:
    try:
        call.answer(model, x)
    except Exception as error:  # noqa: BLE001 - whatever a user's own layer raises
        return error
    return None
