"""A last layer that has the vectors of tokens for its weight."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TiedLinear(nn.Module):
    """A linear layer whose weight another layer has: Press & Wolf 2017, arXiv:1608.05859.

    Args:
        outputs: V, how many numbers it gives.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, states: Tensor, weight: Tensor) -> Tensor:
        """States (N, K, D) and the weight (V, D) -> (N, K, V)."""
        return F.linear(states, weight, self.bias)
