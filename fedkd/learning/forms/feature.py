"""Forms of knowledge in features, sample by sample; what is learned for them needs no batch."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.func import vmap

from fedkd.knowledge import feature
from fedkd.learning.forms import adapters
from fedkd.learning.forms.adapters import Shape
from fedkd.learning.forms.base import Compared, First, Form, Weighted, pairs


class Hint(Weighted):
    """Parameters of `fitnets`."""

    weight: float = Field(default=100.0, gt=0)


class Attention(Weighted):
    """Parameters of `at`."""

    weight: float = Field(default=1000.0, gt=0)
    power: float = Field(default=2.0, ge=1)
    """The higher, the more the strongest channels count."""


class Selectivity(Weighted):
    """Parameters of `nst`."""

    weight: float = Field(default=50.0, gt=0)


class VID(Weighted):
    """Parameters of `vid`."""

    variance: float = Field(default=5.0, gt=feature.VARIANCE_FLOOR)
    """Where every channel's variance starts."""


class Boundary(Weighted):
    """Parameters of `ab`."""

    weight: float = Field(default=0.003, gt=0)
    margin: float = Field(default=1.0, ge=0)
    """How far beyond the boundary a neuron should be."""
    epochs: PositiveInt = 1
    """Epochs of this loss alone, before the student's own."""


class Factor(Weighted):
    """Parameters of `ft`."""

    weight: float = Field(default=200.0, gt=0)
    rate: float = Field(default=0.5, gt=0)
    """Channels of a factor over those of the teacher."""
    epochs: PositiveInt = 1
    """Epochs in which the paraphraser learns to restore the teacher's maps, before."""


Shapes = Sequence[Shape]


def regressed(loss: Any, student: Shapes, teacher: Shapes, generator: torch.Generator) -> Compared:
    """A form of features that a regressor brings to the teacher's width."""
    both = list(zip(student, teacher, strict=True))
    return pairs(
        loss,
        [adapters.regressor(s, t, generator) for s, t in both],
        [adapters.like_regressed(s, t) for s, t in both],
    )


def _pooled(loss: Any, student: Shapes, teacher: Shapes) -> Compared:
    sizes = [adapters.common_size(s, t) for s, t in zip(student, teacher, strict=True)]
    return pairs(loss, *([adapters.pooled(size) for size in sizes] for _ in range(2)))


def _same(regressed: Tensor) -> Tensor:
    return regressed


def _fitnets(_params: Hint, *about: Any) -> Compared:
    return regressed(partial(feature.hint, regressor=_same), *about)


def _at(params: Attention, student: Shapes, teacher: Shapes, _: torch.Generator) -> Compared:
    return _pooled(partial(feature.attention, power=params.power), student, teacher)


def _nst(_params: Selectivity, student: Shapes, teacher: Shapes, _: torch.Generator) -> Compared:
    return _pooled(feature.selectivity, student, teacher)


class GaussianRegressor(nn.Module):
    """Mean and raw variance of the teacher's features: (N, ...) -> (N, 2, C, ...).

    The variances are the weights of a layer, so that they have a gradient for each sample.
    """

    def __init__(
        self, student: Shape, teacher: Shape, variance: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.mean = adapters.regressor(student, teacher, generator)
        channels = adapters.channels_regressed(student, teacher)
        self.raw = nn.Linear(1, channels, bias=False)
        with torch.no_grad():
            self.raw.weight.copy_(feature.raw_variance(channels, variance=variance)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        mean = self.mean(x)
        raw = self.raw(mean.new_ones(len(mean), 1))
        return torch.stack(
            [mean, raw.reshape(*raw.shape, *[1] * (mean.dim() - 2)).expand_as(mean)], 1
        )


def _vid(params: VID, student: Shapes, teacher: Shapes, generator: torch.Generator) -> Compared:
    def one(ours: Tensor, theirs: Tensor) -> Tensor:
        raw = ours[1].reshape(ours.shape[1], -1)[:, 0]
        return feature.vid(ours[:1], theirs[None], regressor=_same, raw_variance=raw)[0]

    both = list(zip(student, teacher, strict=True))
    return pairs(
        vmap(one),
        [GaussianRegressor(s, t, params.variance, generator) for s, t in both],
        [adapters.like_regressed(s, t) for s, t in both],
    )


def _ab(params: Boundary, student: Shapes, teacher: Shapes, generator: torch.Generator) -> Compared:
    compared = regressed(None, student, teacher, generator)

    def first(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
        both = zip(compared.student, ours, compared.teacher, theirs, strict=True)
        values = [feature.boundary(c(s), p(t), margin=params.margin) for c, s, p, t in both]
        # Halved for each layer further from the last.
        halves = [params.weight * 0.5**back for back in range(len(values))]
        return torch.stack([w * v for w, v in zip(halves, values[::-1], strict=True)]).sum(dim=0)

    return Compared(None, compared.student, compared.teacher, first=First(params.epochs, first))


def _ft(params: Factor, student: Shapes, teacher: Shapes, generator: torch.Generator) -> Compared:
    return translated(feature.factor, params, student, teacher, generator)


def translated(
    loss: Callable[[Tensor, Tensor], Tensor],
    params: Factor,
    student: Shapes,
    teacher: Shapes,
    generator: torch.Generator,
) -> Compared:
    """A form of translated maps, and what an auto-encoder that learns first makes of others."""
    sizes = [adapters.common_size(s, t) for s, t in zip(student, teacher, strict=True)]
    widths = [max(1, round(params.rate * t[0])) for t in teacher]
    translators, paraphrasers, decoders = (
        nn.ModuleList(
            adapters.translator(inputs, outputs, size, generator)
            for inputs, outputs, size in zip(ins, outs, sizes, strict=True)
        )
        for ins, outs in (
            ([s[0] for s in student], widths),
            ([t[0] for t in teacher], widths),
            (widths, [t[0] for t in teacher]),
        )
    )

    def restore(_ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
        """Mean squared distance of the teacher's maps from what their factors give back."""
        gaps = []
        for maps, encode, decode, size in zip(theirs, paraphrasers, decoders, sizes, strict=True):
            restored = decode(encode(maps))
            gaps.append((restored - adapters.pooled(size)(maps)).square().flatten(1).mean(dim=1))
        return torch.stack(gaps).sum(dim=0)

    compared = pairs(loss, list(translators), list(paraphrasers))
    learned = nn.ModuleList([paraphrasers, decoders])
    return Compared(
        compared.loss,
        compared.student,
        compared.teacher,
        first=First(params.epochs, restore, learned),
    )


FORMS = {
    "fitnets": Form("Romero et al. 2015, arXiv:1412.6550", "features", _fitnets, Hint),
    "at": Form("Zagoruyko & Komodakis 2017, arXiv:1612.03928", "maps", _at, Attention),
    "nst": Form("Huang & Wang 2017, arXiv:1707.01219", "maps", _nst, Selectivity),
    "vid": Form("Ahn et al. 2019, arXiv:1904.05835", "features", _vid, VID),
    "ab": Form("Heo et al. 2019, arXiv:1811.03233", "named", _ab, Boundary, first=True),
    "ft": Form("Kim et al. 2018, arXiv:1802.04977", "maps", _ft, Factor, first=True),
}
