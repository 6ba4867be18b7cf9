"""How far points are from where they should be, in units of a length of the record's own.

Only visible points count, of records whose length is known and above 0. Lengths come from targets,
and the furthest that an answer can be from a point inside an image is known: so the most that each
counter can be is too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedkd.specs import TensorSpec
from fedkd.tasks.base import Score

_ROUNDING = 1 + 1e-9
"""So that the furthest corner itself is not further than that, in other arithmetic."""


@dataclass(frozen=True)
class Ruler:
    """What distances are measured by.

    Attributes:
        image: height and width in pixels.
        between: two points, by place, whose distance is a record's length; None: the longer side of
            the box around its visible points.
    """

    image: tuple[int, int]
    between: tuple[int, int] | None = None

    def lengths(self, points: Tensor) -> Tensor:
        """The length of each record of points (N, K, 3), in pixels: (N,), 0 where not known."""
        places, visible = points[..., :2], points[..., 2] > 0
        if self.between is not None:
            pair = list(self.between)
            apart = (places[:, pair[0]] - places[:, pair[1]]).norm(dim=-1)
            return torch.where(visible[:, pair].all(dim=1), apart, 0.0)
        hidden = ~visible[..., None]
        most = places.masked_fill(hidden, -torch.inf).amax(dim=1)
        least = places.masked_fill(hidden, torch.inf).amin(dim=1)
        return (most - least).amax(dim=-1).clamp(min=0)

    def counts(self, points: Tensor) -> Tensor:
        """Which points (N, K, 3) count: bool (N, K)."""
        return (points[..., 2] > 0) & (self.lengths(points) > 0)[:, None]

    def errors(self, decided: Tensor, points: Tensor) -> Tensor:
        """How far points decided (N, K, 3) are from points (N, K, 3), in lengths: float64 (N, K).

        0 for those that do not count.
        """
        apart = (decided[..., :2].double() - points[..., :2].double()).norm(dim=-1)
        return self._in_lengths(apart, points)

    def furthest(self, points: Tensor) -> Tensor:
        """The most that `errors` can be, of whatever is decided."""
        x, y = points[..., 0].double(), points[..., 1].double()
        height, width = self.image
        apart = torch.hypot(torch.maximum(x, width - x), torch.maximum(y, height - y))
        return self._in_lengths(apart * _ROUNDING, points)

    def _in_lengths(self, pixels: Tensor, points: Tensor) -> Tensor:
        """float64 (N, K)."""
        counts = self.counts(points)
        lengths = self.lengths(points).double()[:, None]
        return torch.where(counts, pixels / torch.where(counts, lengths, 1.0), 0.0)


def pck(points: int, ruler: Ruler, *, within: float) -> Score:
    """The share of points that are decided no further away than a share of the record's length.

    Percentage of correct keypoints: Yang & Ramanan 2013, IEEE TPAMI 35(12). Counters are the right
    ones by point, int64 (K,).

    Args:
        points: K.
        ruler: by which lengths are measured.
        within: that share.
    """

    def tally(decided: Tensor, targets: Tensor) -> Tensor:
        right = (ruler.errors(decided, targets) <= within) & ruler.counts(targets)
        return right.sum(dim=0)

    def totals(targets: Tensor) -> Tensor:
        return ruler.counts(targets).sum(dim=0)

    spec = TensorSpec((points,), torch.int64, low=0)
    return Score("pck", tally, lambda *given: _figures("pck", *given), spec, totals)


def nme(points: int, ruler: Ruler) -> Score:
    """The mean distance of decided points from the true ones over the record's length.

    Normalised mean error, as of face alignment: Sagonas et al. 2013, ICCV 300-W. Counters, float64
    (2, K), are the sum of these errors by point, and how many there are.

    Args:
        points: K.
        ruler: by which lengths are measured.
    """

    def counters(errors: Callable[[Tensor], Tensor], targets: Tensor) -> Tensor:
        return torch.stack([errors(targets).sum(dim=0), ruler.counts(targets).sum(dim=0)])

    def tally(decided: Tensor, targets: Tensor) -> Tensor:
        return counters(lambda points: ruler.errors(decided, points), targets)

    def totals(targets: Tensor) -> Tensor:
        return counters(ruler.furthest, targets)

    def read(found: Tensor, _totals: Tensor) -> dict[str, Any]:
        return _figures("nme", *found)

    spec = TensorSpec((2, points), torch.float64, low=0)
    return Score("nme", tally, read, spec, totals, higher=False, share=False)


def _figures(name: str, sums: Tensor, counts: Tensor) -> dict[str, Any]:
    """A mean over all points, and that of each; null where none counts."""
    totals: Sequence[tuple[float, float]] = list(zip(sums.tolist(), counts.tolist(), strict=True))
    every, number = float(sums.sum()), float(counts.sum())
    return {
        name: every / number if number else None,
        f"{name}_by_class": [total / count if count else None for total, count in totals],
    }
