"""Adaptive DeepInversion: images made pixel by pixel from a teacher, without data.

Yin et al. 2020, arXiv:1912.08795.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen, Optimisation
from fedkd.data.types import Samples
from fedkd.knowledge import label
from fedkd.learning.data_free import objectives
from fedkd.learning.data_free.synthesis import Synthetic, learn_from_pool, synthesise
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.loop import OnEpoch


class AdaptiveDeepInversion(Frozen):
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


def train(
    student: nn.Module,
    ensemble: Ensemble,
    params: AdaptiveDeepInversion,
    optimisation: Optimisation,
    rng: Callable[[str], torch.Generator],
    *,
    shape: tuple[int, ...],
    classes: int,
    on_epoch: OnEpoch | None = None,
) -> Samples:
    """Each epoch a batch of images against the student as it is, then a pass over all so far.

    Args:
        student: fitted to the ensemble's answers in place.
        ensemble: the teacher or teachers.
        params: of the images and of distillation.
        optimisation: of the student; `epochs` is the number of batches.
        rng: the source of an epoch's draws, by purpose.
        shape: of one image, (channels, height, width).
        classes: labels are drawn from 0 to classes - 1.
        on_epoch: see `loop.fit`.

    Returns:
        The images, with the labels that were aimed at.

    Raises:
        FederationError: the objective or the student's loss is no longer finite.
    """
    weights = params.model_dump(include={"bn", "total_variation", "l2", "competition"})

    def make(epoch: int) -> Synthetic:
        return synthesise(
            Pixels(shape),
            ensemble,
            student,
            partial(objectives.adi, **weights),
            classes=classes,
            steps=params.steps,
            batch_size=params.batch_size,
            latent=math.prod(shape),
            learning_rate=params.learning_rate,
            rng=rng(f"synthesis {epoch}"),
        )

    return learn_from_pool(
        student,
        ensemble,
        make,
        partial(label.kd, temperature=params.temperature),
        optimisation,
        lambda epoch: rng(f"distillation {epoch}"),
        on_epoch=on_epoch,
    )
