"""Gradients of N records by the filters of a convolution."""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.privacy.gradients import Built

_READS = 32
"""How many products cost as much as to write a number of a record's filters and read it twice."""
_ADDS = 8
"""How many products cost as much as to add up a number of what is not in one piece."""
_UNDERFLOW = 1e-13
"""See `forms`: a number whose products float32 may lose is above the inverse of this, of a clip."""


@dataclass(frozen=True, eq=False, slots=True)
class Geometry:
    """How a convolution goes about its inputs.

    Attributes:
        filters: the shape of its weight, (O, C / groups, *K).
        stride: of each axis.
        padding: zeros at both ends of each axis.
        dilation: of each axis.
        groups: of channels.
    """

    filters: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True, eq=False)
class Convolved:
    """Gradients sum_t slopes[n, :, t] x patches[n, :, t] of inputs (N, C, *S), slopes (N, O, *T).

    Products among patches are sums of products among pixels, over the filter's places; so lengths
    take neither patches nor filters.
    """

    x: Tensor
    slopes: Tensor
    geometry: Geometry

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Gradients`."""
        return len(self.x), *self.geometry.filters

    @property
    def ghost(self) -> bool:
        """Whether products among pixels cost less than the filters."""
        channels, *inner = self.x.shape[1:]
        pixels = [a + 2 * b for a, b in zip(inner, self.geometry.padding, strict=True)]
        outputs, *places = self.slopes.shape[1:]
        size, among = math.prod(self.geometry.filters), math.prod(places) ** 2
        kernel = math.prod(self.geometry.filters[2:])
        cost = math.prod(pixels) ** 2 * channels + among * (_ADDS * kernel + outputs)
        return self.geometry.groups == 1 and cost <= _READS * size

    @cached_property
    def among(self) -> Tensor:
        """Products among patches, (N, T, T)."""
        ends = [each for each in reversed(self.geometry.padding) for _ in range(2)]
        x = F.pad(self.x, ends)
        pixels, places = x.shape[2:], self.slopes.shape[2:]
        flat = x.flatten(2)
        products = (flat.mT @ flat).reshape(len(flat), *pixels, *pixels)
        among = products.new_zeros(len(flat), *places, *places)
        steps = zip(self.geometry.stride, self.geometry.dilation, places, strict=True)
        ways = [(stride, apart, stride * (count - 1) + 1) for stride, apart, count in steps]
        for offset in itertools.product(*map(range, self.geometry.filters[2:])):
            seen = tuple(
                slice(place * apart, place * apart + reach, stride)
                for place, (stride, apart, reach) in zip(offset, ways, strict=True)
            )
            among += products[(slice(None), *seen, *seen)]
        size = math.prod(places)
        return among.reshape(len(flat), size, size)

    def lengths(self) -> Tensor:
        """See `Gradients`."""
        slopes = self.slopes.flatten(2)
        among = (slopes.mT @ slopes).mul_(self.among)
        return among.sum(dim=(1, 2), dtype=torch.float64).clamp(min=0).sqrt()

    def bounds(self) -> Tensor:
        """See `Gradients`."""
        places = torch.diagonal(self.among, dim1=1, dim2=2).double().sqrt()
        slopes = torch.linalg.vector_norm(self.slopes.flatten(2), dim=1).double()
        largest = torch.maximum(slopes, places).amax(dim=1)
        return torch.maximum((slopes * places).sum(dim=1), largest * _UNDERFLOW)

    def rows(self, which: Tensor) -> Tensor:
        """See `Gradients`."""
        return self._folded(self.x[which], self.slopes[which])

    def whole(self) -> Tensor:
        """All of them as they are, (N, O, C / groups, *K)."""
        return self._folded(self.x, self.slopes)

    def _folded(self, x: Tensor, slopes: Tensor) -> Tensor:
        """Records are folded into groups of channels, whose filters are each one's own."""
        count, filters = len(x), self.geometry.filters
        if not count:
            return x.new_zeros(0, *filters)
        many = (count * filters[0], *filters[1:])
        entered, told = (each.reshape(1, -1, *each.shape[2:]) for each in (x, slopes))
        found = self._backward(entered, told, many, count * self.geometry.groups)
        return found.reshape(count, *filters)

    def weighted(self, weights: Tensor, which: Tensor | None = None) -> Tensor:
        """See `Gradients`."""
        x, slopes = self.x, self.slopes
        if which is not None:
            weights, x, slopes = weights[which], x[which], slopes[which]
        if not len(x):
            return x.new_zeros(self.geometry.filters)
        scaled = slopes * weights.to(slopes.dtype).reshape(-1, *[1] * (slopes.dim() - 1))
        return self._backward(x, scaled, self.geometry.filters, self.geometry.groups)

    def _backward(self, x: Tensor, slopes: Tensor, filters: tuple[int, ...], groups: int) -> Tensor:
        _, gradient, _ = torch.ops.aten.convolution_backward(
            slopes,
            x,
            x.new_empty(1).expand(filters),  # of which the shape counts
            None,
            self.geometry.stride,
            self.geometry.padding,
            self.geometry.dilation,
            False,  # noqa: FBT003 - an operator of torch, by position
            (0,) * len(self.geometry.stride),
            groups,
            (False, True, False),
        )
        found: Tensor = gradient
        return found


def convolved(x: Tensor, slopes: Tensor, geometry: Geometry) -> Convolved | Built:
    """Gradients by filters, built at once where that costs less."""
    found = Convolved(x, slopes, geometry)
    return found if found.ghost else Built(found.whole())
