"""Random filters on normalised contrast, in a basis of drawn shapes, and a linear layer.

Features that nobody's data went into: filters are drawn, and what they are weighed and turned by is
found on drawn shapes (`data.shapes`). Random filters as features: Jarrett et al. 2009; local
contrast normalisation: the same; principal components of channels: compare Chan et al. 2014,
PCANet, arXiv:1404.3606. The pipeline as a whole is ours.
"""

import math
from collections import OrderedDict
from functools import lru_cache
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from fedkd import rng
from fedkd.config import Frozen
from fedkd.data.shapes import made_up
from fedkd.errors import ConfigError
from fedkd.models.classifiers import image
from fedkd.models.fixed.buckets import Buckets, quantiles
from fedkd.threads import one_intra_op_thread

_CONTRAST = 0.1
"""What is added to a patch's contrast, for inputs in [0, 1]: below it all is noise."""
_FLAT = 1e-30
"""The least square of a contrast, which adds nothing to `_CONTRAST`; at 0 a root has no slope, by
which a trial tells whether records touch each other."""
_OVERLAP = 1.5
"""The side of a window over the distance of two: they overlap by half."""
_WEIGHED = 200
"""Shapes on which the sizes of filters are brought to one mean response."""
_BATCH = 64
_FEW = 16
"""Images at a time, so that the maps of their responses stay in a core's cache."""


class ContrastFiltersOptions(Frozen):
    """Options of `contrast-filters`."""

    sides: tuple[int, ...] = (3, 5, 7, 9)
    """Sides of the filters, odd."""
    filters: tuple[PositiveInt, ...] = (24, 40, 32, 32)
    """How many there are of each side."""
    pool: PositiveInt = 7
    """The side of the grid on which the responses are averaged."""
    components: PositiveInt = 3130
    """How many features are left, those of the largest variance on shapes; all, where there are
    not so many."""
    whitening: float = Field(default=0.5, ge=0, le=1)
    """How far features are scaled to one variance on shapes: 0 not at all, 1 wholly."""
    unit_norm: bool = False
    """Whether a record's features are scaled to L2 norm 1, as differential privacy wants them."""
    buckets: int = Field(default=0, ge=0, le=15)
    """SAFLe's head: thresholds of each feature, between which equally many shapes lie; 0: none."""
    group: int = Field(default=4, ge=1, le=10)
    """With buckets: bits that are looked up together, so that each group makes 2^group features."""
    shapes: int = Field(default=3000, ge=_WEIGHED)
    """Drawn images on which the basis is found."""
    draw: int = Field(default=0, ge=0)
    """Which draw of filters and shapes: theirs alone, so that all of a run's models have one."""

    @model_validator(mode="after")
    def _one_count_each(self) -> Self:
        if len(self.sides) != len(self.filters) or not self.sides:
            raise ValueError(f"sides {self.sides} and filters {self.filters}: expected one of each")
        if wrong := [side for side in self.sides if side < 3 or side % 2 == 0]:
            raise ValueError(f"sides holds {wrong[0]}: expected odd numbers from 3")
        return self


def contrast_filters(
    shape: tuple[int, ...], classes: int, options: ContrastFiltersOptions
) -> nn.Module:
    """Fixed features and a linear layer; any size and any number of channels."""
    channels, height, width = image("contrast-filters", shape, minimum=max(options.sides))
    if options.pool > min(height, width):
        raise ConfigError(
            f"'contrast-filters.pool' is {options.pool}: expected at most the image's side, "
            f"{min(height, width)}"
        )
    weights, parts = _found(shape, options)
    front = ContrastFilters(channels, (height, width), options, weights)
    *found, thresholds = parts
    basis = ShapeBasis(*found, unit_norm=options.unit_norm)
    layers = OrderedDict[str, nn.Module](filters=front, basis=basis)
    width = len(basis.scale)
    if options.buckets:
        if width * options.buckets < options.group:
            raise ConfigError(
                f"'contrast-filters.group' is {options.group}: expected at most {width} features "
                f"times {options.buckets} buckets"
            )
        draws = rng.stream(options.draw, purpose="groups of buckets")
        layers["buckets"] = buckets = Buckets(thresholds, options.group, draws)
        width = buckets.width
    return nn.Sequential(OrderedDict(**layers, classifier=nn.Linear(width, classes)))


def bases(model: nn.Module) -> dict[str, Tensor]:
    """What of a model's state was found by a decomposition, by name; empty for most models.

    And what was found after it. Another machine's eigenvectors may have other signs, so whoever
    adds up features of several parties has them all use one party's.
    """
    return {
        name: each
        for prefix, module in model.named_modules()
        if isinstance(module, ShapeBasis | Buckets)
        for name, each in module.state_dict(prefix=f"{prefix}." if prefix else "").items()
    }


class ContrastFilters(nn.Module):
    """|w . p| / (|p - mean p| + 0.1) of random filters w, averaged over overlapping windows.

    (N, C, H, W) -> (N, pool^2, filters), L2 norm 1 per sample. A filter has mean 0 and norm 1. The
    square root before the norm evens out what is bright and what is dark. Inputs are in [0, 1] or
    near it. Nothing is learnt, and no data is looked at.
    """

    weights: Tensor
    """(sides,): by which the responses of each side are multiplied."""

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        options: ContrastFiltersOptions,
        weights: Tensor,
    ) -> None:
        super().__init__()
        self.register_buffer("weights", weights.clone())
        self.sides = options.sides
        draws = rng.stream(options.draw, purpose="contrast filters")
        for side, count in zip(options.sides, options.filters, strict=True):
            drawn = torch.randn(count, channels, side, side, generator=draws).flatten(1)
            drawn = F.normalize(drawn - drawn.mean(dim=1, keepdim=True))
            self.register_buffer(f"filters{side}", drawn.view(count, channels, side, side))
        rows, columns = (_windows(each, options.pool) for each in size)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images to features."""
        roots = (torch.cat([self._pooled(few) for few in torch.split(x, _FEW)]) + 1e-6).sqrt()
        found = F.normalize(roots.flatten(1)).view_as(roots)
        return found.transpose(1, 2)

    def _pooled(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, filters, pool^2)."""
        rows, columns = self.get_buffer("rows"), self.get_buffer("columns")
        found = []
        for side, weight in zip(self.sides, self.weights, strict=True):
            found.append((rows @ (self.responses(x, side) @ (weight * columns).T)).flatten(2))
        return torch.cat(found, dim=1)

    def responses(self, x: Tensor, side: int) -> Tensor:
        """(N, C, H, W) -> (N, filters of this side, H, W), at least 0, without their weight."""
        filters = self.get_buffer(f"filters{side}")
        size, numbers = x.shape[2:], filters[0].numel()
        down, across = (_bands(each, side).to(x) for each in size)
        sums, squares = down @ (torch.stack([x, x.square()]).sum(dim=2, keepdim=True) @ across)
        contrast = (squares - sums.square() / numbers).clamp(min=_FLAT).sqrt() + _CONTRAST
        return F.conv2d(x, filters, padding=side // 2).abs_().div_(contrast)


class ShapeBasis(nn.Module):
    """A public change of basis: channels by principal components, places by a cosine transform.

    (N, P, F) -> (N, K): the mean off, an orthonormal 2-D DCT over the P places, components of the F
    channels, the same at every place; of their pairs the K of largest variance on shapes, scaled.
    """

    mean: Tensor
    """(P, F)."""
    channels: Tensor
    """(F, U): the components that any pair uses."""
    pairs: Tensor
    """(K,), int64: place * U + component."""
    scale: Tensor
    """(K,)."""

    def __init__(
        self, mean: Tensor, channels: Tensor, pairs: Tensor, scale: Tensor, *, unit_norm: bool
    ) -> None:
        super().__init__()
        self.unit_norm = unit_norm
        for name, each in zip(
            ("mean", "channels", "pairs", "scale"), (mean, channels, pairs, scale), strict=True
        ):
            self.register_buffer(name, each.clone())
        cosines = _cosines(math.isqrt(len(mean))).float()
        self.register_buffer("places", torch.kron(cosines, cosines), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Features of places to features."""
        turned = self.get_buffer("places") @ ((maps - self.mean) @ self.channels)
        found = turned.flatten(1)[:, self.pairs] * self.scale
        return F.normalize(found) if self.unit_norm else found


@lru_cache(maxsize=4)
def _found(
    shape: tuple[int, ...], options: ContrastFiltersOptions
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The filters' weights; what a `ShapeBasis` is made of, and after it buckets' thresholds.

    Found once: a run builds its models again and again. Every side weighs so that it responds to
    shapes by 1 in the mean.
    """
    with one_intra_op_thread(), torch.no_grad():
        drawn = made_up(options.shapes, shape, rng.stream(options.draw, purpose="shapes"))
        plain = torch.ones(len(options.sides))
        front = ContrastFilters(shape[0], (shape[1], shape[2]), options, plain)
        few = drawn[:_WEIGHED]
        means = [front.responses(few, side).mean() for side in options.sides]
        front.weights.copy_(1 / torch.stack(means))
        maps = torch.cat([front(each) for each in torch.split(drawn, _BATCH)])
        mean = maps.double().mean(dim=0)
        square = torch.zeros(maps.shape[2], maps.shape[2]).double()
        for each in torch.split(maps, _BATCH):
            rows = (each - mean).flatten(0, 1)
            square += rows.T @ rows
        _, vectors = torch.linalg.eigh(square)
        vectors = vectors.flip(1)
        cosines = _cosines(options.pool)
        places = torch.kron(cosines, cosines)
        turned = torch.cat(
            [
                (places @ ((each - mean) @ vectors)).flatten(1).float()
                for each in torch.split(maps, _BATCH)
            ]
        )
        return front.weights, (mean.float(), *_chosen(turned, vectors.float(), options))


def _chosen(
    turned: Tensor, vectors: Tensor, options: ContrastFiltersOptions
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Channels, pairs, scale and thresholds of a basis, by shapes in all of it, (N, places * F)."""
    variances = torch.cat([each.double().var(dim=0) for each in torch.split(turned, 500, dim=1)])
    pairs = variances.argsort(descending=True, stable=True)[: options.components]
    least = 1e-9 * float(variances[pairs[0]])
    scale = variances[pairs].clamp(min=least) ** (-options.whitening / 2)
    features = turned[:, pairs] * scale
    median = features.norm(dim=1).median()
    features = F.normalize(features) if options.unit_norm else features / median
    thresholds = quantiles(features, options.buckets).float()
    width = len(vectors)
    used = int((pairs % width).max()) + 1
    pairs = pairs // width * used + pairs % width
    return vectors[:, :used].contiguous(), pairs, (scale / median).float(), thresholds


def _windows(side: int, pool: int) -> Tensor:
    """(pool, side): the weights of overlapping windows, each a mean of what it covers."""
    step = side / pool
    centres = step * (torch.arange(pool) + 0.5)
    edges = (centres[:, None] + torch.tensor([-0.5, 0.5]) * _OVERLAP * step).clamp(0, side)
    pixels = torch.arange(side)
    covered = torch.minimum(pixels + 1, edges[:, 1:]) - torch.maximum(pixels, edges[:, :1])
    covered = covered.clamp(min=0)
    return covered / covered.sum(dim=1, keepdim=True)


@lru_cache
def _bands(size: int, side: int) -> Tensor:
    """(size, size): ones where two pixels lie in one patch about one of them."""
    pixels = torch.arange(size)
    return ((pixels[:, None] - pixels).abs() <= side // 2).float()


def _cosines(size: int) -> Tensor:
    """The orthonormal DCT-II, (size, size), float64: row k is the k-th cosine."""
    k, i = torch.arange(size).double()[:, None], torch.arange(size).double()
    rows = (math.pi * (i + 0.5) * k / size).cos() * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows
