"""Gradients of N records by one parameter, kept as what they are made of.

The gradient of a linear layer's weight is, for each record, the sum over T places of slopes (O,)
times inputs (D,). Its length follows from the products of both among places, and the clipped sum is
one product over all records and places: neither builds N matrices (O, D). Goodfellow 2015,
arXiv:1510.01799, for T = 1; Li et al. 2021, arXiv:2110.05679, for more; one backward pass, Bu et
al. 2023, arXiv:2210.00038.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Self

import torch
from torch import Tensor

from fedkd.privacy.gradients import Built, Gradients, lengths, sizes

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
        if self.slopes.shape[1] == 1:
            return (sizes(self.slopes) * sizes(self.inputs)).squeeze(1)
        among = _among(self.slopes).mul_(_among(self.inputs))
        return among.sum(dim=(1, 2), dtype=torch.float64).clamp(min=0).sqrt()

    def bounds(self) -> Tensor:
        """See `Gradients`."""
        if self.slopes.shape[1] == 1:  # nothing is added up
            return torch.zeros(len(self.slopes), dtype=torch.float64, device=self.slopes.device)
        # What vanishes in a float32's square is no share of a clip, or the other's size says so.
        slopes, inputs = (
            torch.linalg.vector_norm(each, dim=2).double() for each in (self.slopes, self.inputs)
        )
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


@dataclass(frozen=True, eq=False)
class Lookups:
    """Gradients (N, V, D) that are zero but in the rows that a record looked up.

    Attributes:
        numbers: of rows, int64 (N, T); a row may be there more than once.
        slopes: of what was looked up, (N, T, D), which are added up by row.
        rows_in_all: V.
        padding: the number of a row that learns nothing, whatever its slopes; None: all learn.
    """

    numbers: Tensor
    slopes: Tensor
    rows_in_all: int
    padding: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Gradients`."""
        return len(self.slopes), self.rows_in_all, self.slopes.shape[2]

    def lengths(self) -> Tensor:
        """See `Gradients`."""
        lone, records, together, _ = self._by_row
        squares = lone.square().sum(dim=1)
        return squares.index_add_(0, records, lengths(together).square()).sqrt()

    def bounds(self) -> Tensor:
        """See `Gradients`; of rows that were looked up once nothing is added up."""
        lone, records, _, parts = self._by_row
        return torch.zeros_like(lone[:, 0]).index_add_(0, records, parts.square()).sqrt()

    def rows(self, which: Tensor) -> Tensor:
        """See `Gradients`."""
        numbers, slopes = self.numbers[which], self.slopes[which]
        found = slopes.new_zeros(len(slopes), self.rows_in_all, slopes.shape[2])
        found.scatter_add_(1, numbers.unsqueeze(2).expand_as(slopes), slopes)
        return self._learning(found, 1)

    def weighted(self, weights: Tensor, which: Tensor | None = None) -> Tensor:
        """See `Gradients`."""
        numbers, slopes = self.numbers, self.slopes
        if which is not None:
            weights, numbers, slopes = weights[which], numbers[which], slopes[which]
        scaled = slopes * weights.to(slopes.dtype)[:, None, None]
        found = slopes.new_zeros(self.rows_in_all, slopes.shape[2])
        found.index_add_(0, numbers.flatten(), scaled.flatten(0, 1))
        return self._learning(found, 0)

    def along(self, products: "Products") -> Tensor:
        """The inner product of each record's gradient with its other one, (N,) float64."""
        slopes = products.slopes.mT  # (N, V, K)
        numbers = self.numbers.unsqueeze(2).expand(-1, -1, slopes.shape[2])
        each = (self.slopes @ products.inputs.mT).double() * slopes.gather(1, numbers)
        return self._hidden(each.sum(dim=2)).sum(dim=1)

    def __add__(self, other: Self) -> "Lookups":
        """What two uses of one weight make together."""
        numbers = torch.cat([self.numbers, other.numbers], dim=1)
        slopes = torch.cat([self.slopes, other.slopes], dim=1)
        return Lookups(numbers, slopes, self.rows_in_all, self.padding)

    @cached_property
    def _by_row(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows that a record looked up once, and those that it looked up more often.

        Returns:
            The lengths of the first, (N, T) float64, 0 elsewhere; of the others, R in all: whose
            they are (R,), their gradients (R, D), and the sum of the lengths of what is added up to
            these, (R,) float64.
        """
        count, places, width = self.slopes.shape
        sizes = self._hidden(lengths(self.slopes.reshape(-1, width)).view(count, places))
        ordered, order = self.numbers.sort(dim=1)
        again = torch.zeros_like(ordered, dtype=torch.bool)
        again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
        shared = again | again.roll(-1, dims=1)
        if self.padding is not None:
            shared &= ordered != self.padding
        records, _ = shared.nonzero(as_tuple=True)
        held = order[shared]
        rows = (~again[shared]).cumsum(dim=0) - 1
        found = int(rows[-1]) + 1 if len(rows) else 0
        together = self.slopes.new_zeros(found, width)
        together.index_add_(0, rows, self.slopes[records, held])
        parts = sizes.new_zeros(found).index_add_(0, rows, sizes[records, held])
        lone = sizes.index_put((records, held), sizes.new_zeros(()))
        return lone, records[~again[shared]], together, parts

    def _hidden(self, values: Tensor) -> Tensor:
        """Values (N, T), of padding 0."""
        if self.padding is None:
            return values
        return values.masked_fill(self.numbers == self.padding, 0.0)

    def _learning(self, found: Tensor, dim: int) -> Tensor:
        """Nothing in the row of padding, along an axis."""
        if self.padding is not None:
            found.select(dim, self.padding).zero_()
        return found


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
        cross = self.lookups.along(self.products)
        squares = self.lookups.lengths().square() + self.products.lengths().square() + 2 * cross
        return squares.clamp(min=0).sqrt()

    def bounds(self) -> Tensor:
        """See `Gradients`; rows that are looked up are sums, too."""
        return self.lookups.lengths() + self.lookups.bounds() + self.products.bounds()

    def rows(self, which: Tensor) -> Tensor:
        """See `Gradients`."""
        return self.lookups.rows(which) + self.products.rows(which)

    def weighted(self, weights: Tensor, which: Tensor | None = None) -> Tensor:
        """See `Gradients`."""
        return self.lookups.weighted(weights, which) + self.products.weighted(weights, which)


def _among(rows: Tensor) -> Tensor:
    """(N, T, D) -> (N, T, T): products of each record's rows among each other.

    A float32 product of 65,000 entries is off by up to 1e-5, of which what cancels in a length
    makes 3e-3; so long ones are added up in float64 from parts, as in `gradients.lengths`.
    """
    if rows.shape[2] <= 2048:
        return rows @ rows.mT
    return reduce(torch.add, ((part @ part.mT).double() for part in torch.split(rows, 2048, dim=2)))


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
