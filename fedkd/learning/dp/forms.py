"""Gradients of N records by one parameter, kept as what they are made of.

The gradient of a linear layer's weight is, for each record, the sum over T places of slopes (O,)
times inputs (D,). Its length follows from the products of both among places, and the clipped sum is
one product over all records and places: neither builds N matrices (O, D). Goodfellow 2015,
arXiv:1510.01799, for T = 1; Li et al. 2021, arXiv:2110.05679, for more; one backward pass, Bu et
al. 2023, arXiv:2210.00038.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Self

import torch
from torch import Tensor

from fedkd.privacy.gradients import Built, Gradients

_READS = 32
"""How many products cost as much as to write a number of a matrix and read it twice."""
_UNDERFLOW = 1e-13
"""A slope or an input of which a float32 loses products with others, as a share of a clip, is above
this share's inverse."""


@dataclass(frozen=True, eq=False, slots=True)
class Products:
    """Gradients sum_t slopes[n, t] x inputs[n, t]: slopes (N, T, O), inputs (N, T, D)."""

    slopes: Tensor
    inputs: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Gradients`."""
        return len(self.slopes), self.slopes.shape[2], self.inputs.shape[2]

    @property
    def ghost(self) -> bool:
        """Whether products among places cost less than the matrices."""
        (_, places, outputs), entries = self.slopes.shape, self.inputs.shape[2]
        return places == 1 or places**2 * (outputs + entries) <= _READS * outputs * entries

    def lengths(self) -> Tensor:
        """See `Gradients`."""
        slopes, inputs = self._sizes()
        if slopes.shape[1] == 1:  # in float64, which squares nothing away
            return (slopes * inputs).squeeze(1)
        among = (self.slopes @ self.slopes.mT).double() * (self.inputs @ self.inputs.mT)
        return among.sum(dim=(1, 2)).clamp(min=0).sqrt()

    def bounds(self) -> Tensor:
        """See `Gradients`."""
        if self.slopes.shape[1] == 1:  # nothing is added up
            return torch.zeros(len(self.slopes), dtype=torch.float64, device=self.slopes.device)
        slopes, inputs = self._sizes()
        largest = torch.maximum(slopes, inputs).amax(dim=1)
        return torch.maximum((slopes * inputs).sum(dim=1), largest * _UNDERFLOW)

    def rows(self, which: Tensor) -> Tensor:
        """See `Gradients`."""
        return self.slopes[which].mT @ self.inputs[which]

    def weighted(self, weights: Tensor, which: Tensor | None = None) -> Tensor:
        """See `Gradients`."""
        slopes, inputs = self.slopes, self.inputs
        if which is not None:
            weights, slopes, inputs = weights[which], slopes[which], inputs[which]
        scaled = slopes * weights.to(slopes.dtype)[:, None, None]
        return scaled.flatten(0, 1).mT @ inputs.flatten(0, 1)

    def __add__(self, other: Self) -> "Products":
        """What two uses of one weight make together."""
        both = zip((self.slopes, self.inputs), (other.slopes, other.inputs), strict=True)
        return Products(*(torch.cat(each, dim=1) for each in both))

    def _sizes(self) -> tuple[Tensor, Tensor]:
        """The lengths of slopes and inputs in each place, (N, T) float64."""
        slopes, inputs = (
            torch.linalg.vector_norm(each, dim=2, dtype=torch.float64)
            for each in (self.slopes, self.inputs)
        )
        return slopes, inputs


@dataclass(frozen=True, eq=False, slots=True)
class Lookups:
    """Gradients (N, V, D) that are zero but in the rows that a record looked up.

    Attributes:
        numbers: of rows, int64 (N, T); a row is there once with its gradient, or else with zeros.
        values: its gradients, (N, T, D).
        rows_in_all: V.
    """

    numbers: Tensor
    values: Tensor
    rows_in_all: int

    @classmethod
    def of(cls, numbers: Tensor, slopes: Tensor, rows_in_all: int) -> Self:
        """From numbers (N, T), of which some may be equal, and slopes (N, T, D), added up."""
        count, places, width = slopes.shape
        order = numbers.argsort(dim=1)
        ordered = numbers.gather(1, order)
        groups = torch.zeros_like(ordered)
        groups[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).cumsum(dim=1)
        group = torch.empty_like(groups).scatter_(1, order, groups)
        first = torch.arange(0, count * places, places, device=numbers.device)[:, None]
        values = slopes.new_zeros(count * places, width)
        values.index_add_(0, (group + first).flatten(), slopes.flatten(0, 1))
        numbers = torch.zeros_like(numbers).scatter_(1, group, numbers)
        return cls(numbers, values.view(slopes.shape), rows_in_all)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Gradients`."""
        return len(self.values), self.rows_in_all, self.values.shape[2]

    def lengths(self) -> Tensor:
        """See `Gradients`."""
        return Built(self.values).lengths()

    def bounds(self) -> Tensor:
        """See `Gradients`; as of `Built`."""
        return Built(self.values).bounds()

    def rows(self, which: Tensor) -> Tensor:
        """See `Gradients`."""
        numbers, values = self.numbers[which], self.values[which]
        found = values.new_zeros(len(values), self.rows_in_all, values.shape[2])
        return found.scatter_add_(1, numbers.unsqueeze(2).expand_as(values), values)

    def weighted(self, weights: Tensor, which: Tensor | None = None) -> Tensor:
        """See `Gradients`."""
        numbers, values = self.numbers, self.values
        if which is not None:
            weights, numbers, values = weights[which], numbers[which], values[which]
        scaled = values * weights.to(values.dtype)[:, None, None]
        found = values.new_zeros(self.rows_in_all, values.shape[2])
        return found.index_add_(0, numbers.flatten(), scaled.flatten(0, 1))

    def __add__(self, other: Self) -> "Lookups":
        """What two uses of one weight make together."""
        numbers = torch.cat([self.numbers, other.numbers], dim=1)
        return Lookups.of(numbers, torch.cat([self.values, other.values], dim=1), self.rows_in_all)


@dataclass(frozen=True, eq=False, slots=True)
class Tied:
    """Gradients of a weight whose rows are looked up, and that a linear layer has too."""

    lookups: Lookups
    products: Products

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Gradients`."""
        return self.products.shape

    def lengths(self) -> Tensor:
        """See `Gradients`; the square of a sum has a cross term."""
        slopes = self.products.slopes.mT  # (N, V, K)
        numbers = self.lookups.numbers.unsqueeze(2).expand(-1, -1, slopes.shape[2])
        along = self.lookups.values @ self.products.inputs.mT
        cross = (along.double() * slopes.gather(1, numbers)).sum(dim=(1, 2))
        squares = self.lookups.lengths().square() + self.products.lengths().square() + 2 * cross
        return squares.clamp(min=0).sqrt()

    def bounds(self) -> Tensor:
        """See `Gradients`."""
        return self.lookups.lengths() + self.products.bounds()

    def rows(self, which: Tensor) -> Tensor:
        """See `Gradients`."""
        return self.lookups.rows(which) + self.products.rows(which)

    def weighted(self, weights: Tensor, which: Tensor | None = None) -> Tensor:
        """See `Gradients`."""
        return self.lookups.weighted(weights, which) + self.products.weighted(weights, which)


def products(slopes: Tensor, inputs: Tensor) -> Products | Built:
    """Gradients sum_t slopes[n, t] x inputs[n, t], built at once where that costs less."""
    found = Products(slopes, inputs)
    return found if found.ghost else Built(slopes.mT @ inputs)


def added(uses: Sequence[Gradients]) -> Gradients:
    """The gradients of a parameter from those of all its uses, in the form that takes least."""
    if len(uses) == 1:
        return uses[0]
    products = [each for each in uses if isinstance(each, Products)]
    lookups = [each for each in uses if isinstance(each, Lookups)]
    if len(products) + len(lookups) == len(uses):
        linear = reduce(Products.__add__, products) if products else None
        looked = reduce(Lookups.__add__, lookups) if lookups else None
        if linear is None and looked is not None:
            return looked
        if linear is not None and linear.ghost:
            return linear if looked is None else Tied(looked, linear)
    return Built(reduce(torch.add, (whole(each) for each in uses)))


def whole(gradients: Gradients) -> Tensor:
    """All of them as they are, (N, *shape_p)."""
    return gradients.rows(torch.ones(gradients.shape[0], dtype=torch.bool))
