"""What a model answers, and how good that is."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fedkd.data.types import Samples
from fedkd.errors import DataError
from fedkd.models import call
from fedkd.models.text.writing import write
from fedkd.rows import Rows, batches, device_of, one
from fedkd.tasks import Score, Task


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, then every module of it back into its own mode."""
    if training := [module for module in model.modules() if module.training]:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def answers(model: nn.Module, x: Rows, *, batch_size: int = 512) -> Tensor:
    """What the model answers in evaluation mode, without gradient; its mode is left as it was.

    N inputs -> (N, *A), such as logits (N, C), where the inputs are. Of large inputs fewer than
    `batch_size` are asked about at once.
    """
    with evaluating(model), torch.no_grad():
        asked = batches(x, batch_size)
        return torch.cat([call.answer(model, batch).to(device_of(x)) for batch in asked])


def tallies(
    model: nn.Module | Tensor, samples: Samples, scores: Sequence[Score], *, batch_size: int = 512
) -> dict[str, Tensor]:
    """What scores count of a model's answers, by the name of their figure.

    Args:
        model: a model, or answers (N, *A) that were computed before, of which scores of what a
            model writes count nothing.
        samples: N samples with their true targets, at least 1.
        scores: what counts.
        batch_size: of how many samples answers are held at a time, since counters add up; of all,
            where a score counts pairs.
    """
    counted: dict[str, Tensor] = {}
    if any(score.together for score in scores):
        model = answers(model, samples.x) if isinstance(model, nn.Module) else model
        batch_size = len(samples)
    elif isinstance(samples.x, Tensor) and samples.x.dtype == torch.int64:
        batch_size = min(batch_size, _TEXTS)
    for rows in torch.split(torch.arange(len(samples)), batch_size):
        part = samples.subset(rows)
        given = answers(model, part.x) if isinstance(model, nn.Module) else model[rows]
        written: Tensor | None = None
        for score in scores:
            if score.written is None:
                tally = score.tally(given, part.y)
            elif isinstance(model, nn.Module):
                written = _written(model, part.x, score.written) if written is None else written
                tally = score.tally(written, part.y)
            else:  # answers to what others wrote say nothing of what a model would write
                tally = torch.zeros(score.counts.shape, dtype=score.counts.dtype)
            before = counted.get(score.figure)
            counted[score.figure] = tally if before is None else before + tally
    return counted


_TEXTS = 64
"""Texts of which answers are held at a time: each token's has as many numbers as a vocabulary."""


def _written(model: nn.Module, x: Rows, task: Task) -> Tensor:
    with evaluating(model):
        return write(model, one(x[torch.arange(len(x))]), task)


def totals(samples: Samples, scores: Sequence[Score]) -> dict[str, Tensor]:
    """What scores read beside their counters, of all samples, by the name of their figure."""
    return {score.figure: score.totals(samples.y) for score in scores}


def figures(
    counted: Mapping[str, Tensor], most: Mapping[str, Tensor], scores: Sequence[Score]
) -> dict[str, Any]:
    """The figures of all scores, from what `tallies` and `totals` give."""
    return {
        name: value
        for score in scores
        for name, value in score.read(counted[score.figure], most[score.figure]).items()
    }


def score(model: nn.Module | Tensor, samples: Samples, scores: Sequence[Score]) -> dict[str, Any]:
    """The figures of a model's answers; arguments as `tallies`.

    Raises:
        DataError: there is no sample.
    """
    _require(samples)
    return figures(tallies(model, samples, scores), totals(samples, scores), scores)


def by_stage(
    model: nn.Module, samples: Samples, stages: int, headline: Score
) -> list[float | None]:
    """A score's figure on the samples of each stage of a stream.

    Raises:
        DataError: a stage has no sample.
    """
    return [
        score(model, samples.of_stage(stage), [headline])[headline.figure]
        for stage in range(stages)
    ]


def accuracy(model: nn.Module | Tensor, samples: Samples) -> float:
    """The share of samples that are predicted right, in [0, 1]; arguments as `tallies`.

    Raises:
        DataError: there is no sample.
    """
    _require(samples)
    given = answers(model, samples.x) if isinstance(model, nn.Module) else model
    return (given.argmax(dim=-1) == samples.y).sum().item() / len(samples)


def _require(samples: Samples) -> None:
    if len(samples) == 0:
        raise DataError("a score of 0 samples is undefined: expected at least 1 to evaluate on")
