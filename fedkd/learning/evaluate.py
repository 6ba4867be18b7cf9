"""What a model answers, and how often it is right."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedkd.data.types import Samples
from fedkd.errors import DataError
from fedkd.models import call
from fedkd.rows import Rows, batches


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, then every module of it back into its own mode."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def answers(model: nn.Module, x: Rows, *, batch_size: int = 512) -> Tensor:
    """What the model answers in evaluation mode, without gradient; its mode is left as it was.

    N inputs -> (N, *A), such as logits (N, C). Of large inputs fewer than `batch_size` are asked
    about at once.
    """
    with evaluating(model), torch.no_grad():
        return torch.cat([call.answer(model, batch) for batch in batches(x, batch_size)])


def correct_by_class(model: nn.Module | Tensor, samples: Samples, classes: int) -> Tensor:
    """How many samples of each class are predicted right.

    Args:
        model: a model, or logits (N, C) that were computed before.
        samples: N samples with their true labels.
        classes: C.

    Returns:
        int64 (C,).
    """
    said = answers(model, samples.x) if isinstance(model, nn.Module) else model
    right = samples.y[said.argmax(dim=-1) == samples.y]
    return torch.bincount(right, minlength=classes)


def accuracy(model: nn.Module | Tensor, samples: Samples) -> float:
    """The share of samples that are predicted right, in [0, 1]; arguments as `correct_by_class`.

    Raises:
        DataError: there is no sample.
    """
    if len(samples) == 0:
        raise DataError("accuracy of 0 samples is undefined: expected at least 1 to evaluate on")
    said = answers(model, samples.x) if isinstance(model, nn.Module) else model
    return (said.argmax(dim=-1) == samples.y).sum().item() / len(samples)
