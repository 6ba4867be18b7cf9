"""Features in buckets, and groups of buckets as one choice each.

SAFLe, Bacellar et al. 2025, arXiv:2512.03336: a table of embeddings looked up by groups of bucketed
features is a linear layer on indicators, so a closed form fits it.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn


class Buckets(nn.Module):
    """(N, K) -> (N, groups * 2^size): for each group which of its 2^size patterns a record has.

    Every feature has a bit for each of its thresholds, 1 where it lies above; bits are shuffled and
    put into groups of `size`, and what does not fill a group is left out. A record's indicators
    have L2 norm 1.
    """

    thresholds: Tensor
    """(K, L), ascending: public, as those of drawn images are."""

    def __init__(self, thresholds: Tensor, size: int, draws: Generator) -> None:
        super().__init__()
        groups = thresholds.numel() // size
        if groups < 1:
            raise ValueError(f"Expected size={size} <= {thresholds.numel()} bits.")
        order = torch.randperm(thresholds.numel(), generator=draws)[: groups * size]
        self.register_buffer("thresholds", thresholds.clone())
        self.register_buffer("order", order.view(groups, size), persistent=False)
        self.register_buffer("values", 2 ** torch.arange(size), persistent=False)

    @property
    def width(self) -> int:
        """How many indicators there are."""
        groups, size = self.get_buffer("order").shape
        return int(groups * 2**size)

    def forward(self, x: Tensor) -> Tensor:
        """Features to indicators."""
        order, values = self.get_buffer("order"), self.get_buffer("values")
        bits = (x[:, :, None] > self.thresholds).flatten(1)[:, order]
        patterns = F.one_hot((bits * values).sum(dim=2), 2 ** len(values))
        found: Tensor = patterns.flatten(1).to(x.dtype) / len(order) ** 0.5
        return found


def quantiles(features: Tensor, count: int) -> Tensor:
    """Thresholds (K, L) between which equally many of N records' features (N, K) lie."""
    ranked = features.sort(dim=0).values
    rows = torch.arange(1, count + 1) * len(features) // (count + 1)
    return ranked[rows].T.contiguous()
