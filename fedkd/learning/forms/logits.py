"""Forms of knowledge in logits beyond one temperature: standardised, at levels, on a curriculum."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from fedkd.knowledge import logits as losses
from fedkd.learning.forms.adapters import Shape
from fedkd.learning.forms.base import Compared, Form, Weighted, logits
from fedkd.learning.forms.label import OF_CLASSES, Tempered, counting, mean_of, unlabelled
from fedkd.rng import torch_default


class Standardised(Tempered):
    """Parameters of `logit-standardisation`."""

    weight: float = Field(default=9.0, gt=0)
    temperature: float = Field(default=2.0, gt=0)
    """What standardised logits are divided by."""


class MultiLevel(Weighted):
    """Parameters of `mlkd`."""

    weight: float = Field(default=0.9, gt=0)
    temperatures: tuple[PositiveFloat, ...] = Field(default=(2, 3, 4, 5, 6), min_length=1)
    """Each > 0; the loss is summed over them."""
    batch: float = Field(default=1.0, ge=0)
    """Weight of how alike records are, beside that of each record."""
    classes: float = Field(default=1.0, ge=0)
    """Weight of how alike classes are."""


class CurriculumTemperature(Weighted):
    """Parameters of `ctkd`."""

    weight: float = Field(default=0.9, gt=0)
    lowest: float = Field(default=1.0, gt=0)
    """The temperature is above it."""
    span: float = Field(default=20.0, gt=0)
    """The temperature is below `lowest` + `span`."""
    epochs: PositiveInt = 10
    """In how many the temperature comes to learn at full strength."""


class LearnedTemperature(nn.Module):
    """Logits (..., C) and beside them the temperature that makes them hardest, (..., C + 1).

    It is `lowest` + `span` * sigmoid(raw), and raw starts at 1. Raw is the weight of a layer, so
    that it has a gradient for each sample.
    """

    def __init__(self, lowest: float, span: float) -> None:
        super().__init__()
        self.lowest, self.span = lowest, span
        self.raw = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.raw.weight)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        raw = self.raw(x.new_ones(*x.shape[:-1], 1))
        return torch.cat([x, self.lowest + self.span * raw.sigmoid()], dim=-1)


def _standardised(params: Standardised, *_: Any) -> Compared:
    return unlabelled(partial(losses.standardised_kd, temperature=params.temperature))


def _multi_level(params: MultiLevel, *_: Any) -> Compared:
    def compare(ours: Sequence[Tensor], theirs: Sequence[Tensor], y: Tensor) -> Tensor:
        where = counting(ours[0], y)
        both = ours[0], theirs[0]
        values = losses.instance_level(*both, temperatures=params.temperatures, where=where)
        total = mean_of(values, where)
        for t in params.temperatures:
            about: dict[str, Any] = {"temperature": t, "where": where}
            total = total + params.batch * losses.batch_level(*both, **about).mean()
            total = total + params.classes * losses.class_level(*both, **about).mean()
        return total

    return logits(compare)


def _curriculum(
    params: CurriculumTemperature,
    _student: Sequence[Shape],
    _teacher: Sequence[Shape],
    generator: torch.Generator,
) -> Compared:
    strength = 0.0

    def begin(epoch: int) -> None:
        nonlocal strength
        strength = losses.curriculum_strength(epoch, epochs=params.epochs)

    def loss(ours: Tensor, theirs: Tensor, *, where: Tensor | None) -> Tensor:
        own, temperature = ours[..., :-1], ours[..., -1]
        return losses.adversarial_kd(own, theirs, temperature, strength=strength, where=where)

    with torch_default(generator):
        adapter = LearnedTemperature(params.lowest, params.span)
    compared = unlabelled(loss)
    return Compared(compared.loss, nn.ModuleList([adapter]), compared.teacher, begin=begin)


FORMS = {
    "logit-standardisation": Form(
        "Sun et al. 2024, arXiv:2403.01427",
        "logits",
        _standardised,
        Standardised,
        asks=OF_CLASSES,
    ),
    "mlkd": Form(
        "Jin et al. 2023, CVPR, pp. 24276-24285",
        "logits",
        _multi_level,
        MultiLevel,
        couples=True,
        asks=OF_CLASSES,
    ),
    "ctkd": Form(
        "Li et al. 2023, arXiv:2211.16231",
        "answers",
        _curriculum,
        CurriculumTemperature,
        asks=OF_CLASSES,
    ),
}
