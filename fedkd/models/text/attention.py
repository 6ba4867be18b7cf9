"""Attention, of plain linear layers, and a transformer's block of it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd.errors import ConfigError


def shown(counted: Tensor, *, causal: bool = False) -> Tensor:
    """Which places may be looked at, bool (N, 1, 1 or K, K): those that count, `counted` (N, K).

    A record without any may look at its first, since a softmax over nothing is NaN.

    Args:
        counted: false for padding.
        causal: whether a place sees none that comes later.
    """
    places = counted.shape[1]
    first = torch.arange(places, device=counted.device) == 0
    mask = (counted | first)[:, None, None, :]
    if not causal:
        return mask
    return mask & torch.ones(places, places, dtype=torch.bool, device=counted.device).tril()


class MultiHeadAttention(nn.Module):
    """States (N, Q, D) that look at others (N, K, D): (N, Q, D).

    Multi-head attention, Vaswani et al. 2017, arXiv:1706.03762.

    Args:
        width: D.
        heads: a divisor of D.

    Raises:
        ConfigError: it is none.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"heads is {heads}: expected a divisor of the width {width}")
        self._heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, states: Tensor, others: Tensor, mask: Tensor) -> Tensor:
        """See the class; `mask` is as `shown` gives it."""
        query, key, value = (
            layer(each).unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for layer, each in ((self.query, states), (self.key, others), (self.value, others))
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """A transformer's block, normalised before each part: states (N, K, D) -> (N, K, D).

    The order of Xiong et al. 2020, arXiv:2002.04745, which needs no warm-up.

    Args:
        width: D.
        heads: a divisor of D.
        hidden: the width between the two layers of its perceptron.
        crossed: whether states look at a memory too.
    """

    def __init__(self, width: int, heads: int, hidden: int, *, crossed: bool = False) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads)
        self.cross_norm = nn.LayerNorm(width) if crossed else None
        self.cross = MultiHeadAttention(width, heads) if crossed else None
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(
        self,
        states: Tensor,
        mask: Tensor,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """See the class; masks are as `shown` gives them."""
        normed = self.attention_norm(states)
        states = states + self.attention(normed, normed, mask)
        if self.cross is not None and self.cross_norm is not None:
            states = states + self.cross(self.cross_norm(states), memory, memory_mask)
        out: Tensor = states + self.feed(self.feed_norm(states))
        return out
