"""Models of a user's own, by import path."""

import math
from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedkd import models
from fedkd.config import ModelSpec
from fedkd.tasks import Task


class Overwrite(nn.Module):
    """A first layer that hands its input on, and leaves zeros in it."""

    def forward(self, x: Tensor) -> Tensor:
        said = x.clone()
        x.zero_()
        return said


class Leave(nn.Module):
    """The same, and leaves them as they are; a user's layer too, so images are laid out alike."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def _built(
    first: type[nn.Module], model: str, shape: tuple[int, ...], classes: int, **options: Any
) -> nn.Module:
    spec = ModelSpec.model_validate({"name": model, **options})
    # torch's global generator is lent to whoever builds a user's model
    draws = torch.default_generator
    rest = models.build(spec, shape=shape, classes=classes, generator=draws)
    return nn.Sequential(OrderedDict([("first", first()), *rest.named_children()]))


# Models that overwrite their inputs, and twins of theirs that do not.
mlp, careful_mlp = (partial(_built, first, "mlp") for first in (Overwrite, Leave))
cnn, careful_cnn = (partial(_built, first, "dense-cnn") for first in (Overwrite, Leave))


FIRST, WORDS = 5, 8
"""Of a vocabulary: the lowest number, and how many there are."""


class Words(nn.Module):
    """Takes rows of whole numbers from 5 to 12, and 0, and nothing else."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 6)
        self.classifier = nn.Linear(6 * shape[0], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (N, F) -> logits (N, classes)."""
        numbers = (x.long() - FIRST).where(x != 0, 0)
        said: Tensor = self.classifier(self.embedding(numbers).flatten(1))
        return said


class Branch(nn.Module):
    """One of two layers, by the mean of the batch."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(shape[0], classes), nn.Linear(shape[0], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (N, F) -> logits (N, classes)."""
        said: Tensor = self.a(x) if x.mean() > 0 else self.b(x)
        return said


def by_task(task: Task) -> nn.Module:
    """A linear model of rows, by what is asked of it alone."""
    return nn.Linear(*task.inputs, task.classes)


class ByColumn(nn.Module):
    """Takes the columns of a table by keyword: pixels, an age and the numbers of words."""

    def __init__(self, shape: dict[str, tuple[int, ...]], classes: int) -> None:
        super().__init__()
        pixels = math.prod(shape["image"])
        self.words = nn.Embedding(9, 2)
        self.layer = nn.Linear(pixels + 1 + 2, classes)

    def forward(self, image: Tensor, age: Tensor, words: Tensor) -> Tensor:
        parts = [image.flatten(1), age[:, None] / 90, self.words(words).mean(dim=1)]
        answer: Tensor = self.layer(torch.cat(parts, dim=1))
        return answer
