"""Softmax regression on fixed features by whole gradients: their sum over records, and steps."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.privacy import mechanisms

_ROWS = 4096
"""At a time, for memory."""


def gradient(
    features: Tensor, y: Tensor, weights: Tensor, *, intercept: float, clip: float | None = None
) -> Tensor:
    """The sum over records of the cross entropy's gradient in the weights, in float64.

    A record's is phi (p - y)^T with phi = (features, intercept), p = softmax(W^T phi) and y
    one-hot. Its L2 norm is |phi| |p - y|, so it is clipped without being made: DP-SGD's sum, Abadi
    et al. 2016, arXiv:1607.00133, over all records. A record with a NaN or an infinity counts as
    zero.

    Args:
        features: (N, F).
        y: classes (N,).
        weights: W, (F + 1, C), float64.
        intercept: the constant beside the features, > 0.
        clip: the L2 norm that a record's gradient is clipped to; None leaves them.

    Returns:
        (F + 1, C); zeros where N = 0.
    """
    total = torch.zeros_like(weights)
    for rows, labels in zip(torch.split(features, _ROWS), torch.split(y, _ROWS), strict=True):
        phi = F.pad(rows.double(), (0, 1), value=intercept)
        wrong = (phi @ weights).softmax(dim=1) - F.one_hot(labels, weights.shape[1])
        if clip is not None:
            # (phi / |phi|) (|phi| (p - y))^T is as long as its second factor.
            length = phi.norm(dim=1, keepdim=True)
            wrong = mechanisms.clip(wrong * length, clip)
            phi = torch.where(length.isfinite(), phi / length, 0.0)
        total += phi.T @ wrong
    return total


def stepped(
    weights: Tensor, velocity: Tensor, mean_gradient: Tensor, *, rate: float, momentum: float
) -> tuple[Tensor, Tensor]:
    """One step of gradient descent with heavy-ball momentum (Polyak 1964): weights and velocity."""
    velocity = momentum * velocity + mean_gradient
    return weights - rate * velocity, velocity
