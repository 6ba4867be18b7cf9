"""A user's metric of tags."""

import torch
from torchmetrics import Metric


class Right(Metric):
    """The share of places of (N, C, L) whose likeliest class is that of (N, L)."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("right", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("all", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        self.right += (preds.argmax(dim=1) == target).sum()
        self.all += target.numel()

    def compute(self) -> torch.Tensor:
        return self.right / self.all
