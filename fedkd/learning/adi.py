"""Adaptive DeepInversion: images made pixel by pixel from a teacher, without data.

Yin et al. 2020, arXiv:1912.08795.
"""

import math
from functools import partial

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen
from fedkd.knowledge import label
from fedkd.learning.data_free import Synthetic, adi_objective, learn_from_pool, synthesise
from fedkd.learning.lesson import Lesson
from fedkd.learning.loop import OnEpoch
from fedkd.learning.multi_teacher import Ensemble


class Params(Frozen):
    """Parameters of `adi`; the student's epochs are the batches that are made."""

    steps: int = Field(default=200, ge=1)
    """Steps for one batch. Paper: 2,000 on CIFAR-10."""
    batch_size: int = Field(default=128, ge=2)
    """Images in a batch."""
    learning_rate: float = Field(default=0.1, gt=0)
    """Of the pixels, by Adam."""
    bn: float = Field(default=1.0, ge=0)
    """The weight of the distance to the teacher's BatchNorm statistics."""
    total_variation: float = Field(default=2.5e-5, ge=0)
    """The weight of differences between neighbouring pixels."""
    l2: float = Field(default=3e-8, ge=0)
    """The weight of an image's norm."""
    competition: float = Field(default=0.2, ge=0)
    """The weight of the student's agreement, which is driven down; 0 is plain DeepInversion."""
    temperature: float = Field(default=3.0, gt=0)
    """Of distillation."""


class Pixels(nn.Module):
    """No generator: latent numbers are the pixels, through a sigmoid.

    In place of a generator in `synthesise`, with `latent` the number of pixels, so that each image
    is optimised by itself and stays in [0, 1].
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, z: Tensor, _y: Tensor | None = None) -> Tensor:
        """(N, latent) -> (N, *shape)."""
        return torch.sigmoid(z).reshape(len(z), *self.shape)


def learn(lesson: Lesson, params: Params) -> nn.Module:
    """The way `adi`: each epoch a batch against the student as it is, then a pass over all."""
    student, shape = lesson.student(), lesson.data.shape
    weights = params.model_dump(include={"bn", "total_variation", "l2", "competition"})

    def teach(on_epoch: OnEpoch) -> None:
        with Ensemble(lesson.teachers) as ensemble:

            def make(epoch: int) -> Synthetic:
                return synthesise(
                    Pixels(shape),
                    ensemble,
                    student,
                    partial(adi_objective, **weights),
                    classes=lesson.data.classes,
                    steps=params.steps,
                    batch_size=params.batch_size,
                    latent=math.prod(shape),
                    learning_rate=params.learning_rate,
                    rng=lesson.stream(f"synthesis {epoch}"),
                )

            learn_from_pool(
                student,
                ensemble,
                make,
                partial(label.kd, temperature=params.temperature),
                lesson.training,
                lambda epoch: lesson.stream(f"distillation {epoch}"),
                on_epoch=on_epoch,
            )

    lesson.stage("student", student, teach, epochs=lesson.training.epochs)
    return student
