"""Moments: the two sums over records from which a linear model follows in closed form.

A sum does not depend on who holds which record, so neither does what follows from it. Zhuang et al.
2025, AFL, arXiv:2405.16240.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fedkd.privacy import mechanisms
from fedkd.privacy.source import NoiseSource


class Moments(NamedTuple):
    """Sums over N records with features phi (D,) and one-hot labels y (C,), in float64."""

    features: Tensor
    """Sum phi phi^T, symmetric: (D, D)."""
    labels: Tensor
    """Sum phi y^T: (D, C)."""


def moments(features: Tensor, y: Tensor, classes: int) -> Moments:
    """Features (N, D) and classes (N,) -> their moments; zeros where N = 0."""
    phi = features.double()
    return Moments(phi.T @ phi, phi.T @ F.one_hot(y, classes).double())


def total(parts: Iterable[Moments]) -> Moments:
    """The moments of all records together, the parts added in their order.

    Raises:
        ValueError: there is no part, or the parts differ in D or C.
    """
    features, labels = zip(*parts, strict=True)
    if len({part.shape for part in labels}) != 1:
        found = [tuple(part.shape) for part in labels]
        raise ValueError(f"Expected moments of one shape (D, C), got {found}.")
    return Moments(torch.stack(features).sum(dim=0), torch.stack(labels).sum(dim=0))


def protected(
    exact: Moments,
    *,
    bound: float,
    balance: float,
    noise_multiplier: float,
    source: NoiseSource,
    finest: float = 0.0,
) -> Moments:
    """Both moments on one grid with Gaussian noise, one release of one sensitivity.

    One record moves the first by |phi phi^T|_F = |phi|^2 and the second by |phi y^T|_F = |phi|, so
    (first, balance * bound * second) by at most bound^2 sqrt(1 + balance^2). Off the diagonal an
    entry stands for two, and counts as sqrt(2) of itself.

    Args:
        exact: of records with |phi| <= bound.
        bound: > 0.
        balance: > 0; the larger, the less noise on the labels and the more on the features.
        noise_multiplier: as `events.Gaussian` records it.
        source: of the noise.
        finest: as in `mechanisms.gaussian`.
    """
    width, labels = len(exact.labels), exact.labels.flatten()
    rows, columns = torch.triu_indices(width, width)
    weights = torch.where(rows == columns, 1.0, 2.0).double().sqrt()
    noisy = mechanisms.gaussian(
        torch.cat([triangle(exact.features), labels]),
        sensitivity=bound**2 * math.sqrt(1 + balance**2),
        noise_multiplier=noise_multiplier,
        source=source,
        weights=torch.cat([weights, torch.full_like(labels, balance * bound)]),
        finest=finest,
    )
    features, labels = noisy[: len(weights)], noisy[len(weights) :]
    return Moments(symmetric(features, width), labels.view_as(exact.labels))


def noise_norm(
    width: int, *, bound: float, balance: float, noise_multiplier: float, releases: float
) -> float:
    """How large the noise of `protected` is in sum phi phi^T: its spectral norm, where D is large.

    A symmetric matrix of independent N(0, s^2 / 2) has its eigenvalues within s sqrt(2 D), Wigner's
    semicircle; the noises of several releases add up as sqrt(releases).
    """
    scale = noise_multiplier * bound**2 * math.sqrt(1 + balance**2)
    return scale * math.sqrt(2 * width * releases)


def ridge(given: Moments, penalty: float) -> Tensor:
    """The weights W (D, C) that minimise |Phi W - Y|^2 + penalty |W|^2, in float64.

    Negative eigenvalues, which noise makes, count as 0.

    Raises:
        ValueError: the penalty is not above 0.
    """
    if not penalty > 0:
        raise ValueError(f"Expected penalty={penalty} > 0.")
    values, axes = torch.linalg.eigh(given.features)
    solved: Tensor = axes @ ((axes.T @ given.labels) / (values.clamp(min=0) + penalty)[:, None])
    return solved


def penalty_of(given: Moments, share: float) -> float:
    """`share` of the mean square of a feature summed over all records, for `ridge`."""
    return share * float(given.features.diagonal().mean().clamp(min=1e-12))


def unpacked(features: Tensor, labels: Tensor) -> Moments:
    """The `triangle` of the first sum, (D (D + 1) / 2,), and the second (D, C) -> their moments."""
    return Moments(symmetric(features.double(), len(labels)), labels.double())


def triangle(matrix: Tensor) -> Tensor:
    """The upper triangle of a matrix (D, D), row by row, with its diagonal: (D (D + 1) / 2,)."""
    rows, columns = torch.triu_indices(*matrix.shape)
    return matrix[rows, columns]


def symmetric(upper: Tensor, width: int) -> Tensor:
    """The symmetric matrix (D, D) that `triangle` took apart.

    Raises:
        ValueError: the triangle is not of that width.
    """
    if upper.shape != (width * (width + 1) // 2,):
        raise ValueError(f"Expected the triangle of width {width}, got {tuple(upper.shape)}.")
    rows, columns = torch.triu_indices(width, width)
    matrix = upper.new_empty(width, width)
    matrix[rows, columns] = upper
    matrix[columns, rows] = upper
    return matrix
