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


def moments(
    features: Tensor, y: Tensor, classes: int, *, dtype: torch.dtype = torch.float64
) -> Moments:
    """Features (N, D) and classes (N,) -> their moments; zeros where N = 0.

    Args:
        features: (N, D).
        y: (N,).
        classes: C.
        dtype: in which features are multiplied by features. float32 takes half the time; of a few
            thousand records its rounding is some 2^-22 of a feature's sum of squares.
    """
    phi, rounded = features.double(), features.to(dtype)
    return Moments((rounded.T @ rounded).double(), phi.T @ F.one_hot(y, classes).double())


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


def ridge(given: Moments, penalty: float, *, quickly: bool = False) -> Tensor:
    """The weights W (D, C) that minimise |Phi W - Y|^2 + penalty |W|^2, in float64.

    Negative eigenvalues, which noise makes, count as 0.

    Args:
        given: exact, rounded or noisy.
        penalty: > 0.
        quickly: whether sums that are all but exact are solved in a tenth of the time: eigenvalues
            from -penalty / 2 then count as they are.

    Raises:
        ValueError: the penalty is not above 0.
    """
    return _solved(given.features, given.labels, penalty, quickly=quickly)


def _solved(matrix: Tensor, right: Tensor, penalty: float, *, quickly: bool) -> Tensor:
    """(matrix + penalty I)^-1 right."""
    if not penalty > 0:
        raise ValueError(f"Expected penalty={penalty} > 0.")
    if quickly:
        half = penalty / 2 * torch.eye(len(matrix)).to(matrix)
        _, fails = torch.linalg.cholesky_ex(matrix + half)
        if not fails:
            return torch.cholesky_solve(right, torch.linalg.cholesky(matrix + 2 * half))
    values, axes = torch.linalg.eigh(matrix)
    found: Tensor = axes @ ((axes.T @ right) / (values.clamp(min=0) + penalty)[:, None])
    return found


def penalty_of(given: Moments, share: float) -> float:
    """`share` of the mean square of a feature summed over all records, for `ridge`."""
    return share * float(given.features.diagonal().mean().clamp(min=1e-12))


def unpacked(features: Tensor, labels: Tensor) -> Moments:
    """The `triangle` of the first sum, (D (D + 1) / 2,), and the second (D, C) -> their moments."""
    return Moments(symmetric(features.double(), len(labels)), labels.double())


class Correlations(NamedTuple):
    """Moments in float16 and float32, for phi = (features, intercept) of N records.

    They are written as correlations since these lie in [-1, 1], where float16 has its finest steps
    beside 0. Each is off by 2^-12 at the most, and a root by 2^-24 of itself, so that a sum's
    scatter is off by at most about 2^-12 of its trace in the Frobenius norm.
    """

    correlations: Tensor
    """Of two features over the records, above the diagonal: (F (F - 1) / 2,), float16."""
    roots: Tensor
    """Of the summed squares of each feature less its mean: (F,), float32."""
    labels: Tensor
    """Sum phi y^T: (F + 1, C), float32; it has every class's N and sum of features, too."""


ROUNDING = 2.0**-12
"""The most that a correlation is moved by `correlated`."""


def correlated(given: Moments) -> Correlations:
    """Moments whose last row is the intercept's, as correlations; of what is constant they are 0.

    And all are 0 where there are no records.
    """
    width = len(given.labels) - 1
    counts = given.labels[-1].sum()
    records = (counts**2 / given.features[-1, -1].clamp(min=1e-30)).round().clamp(min=1)
    mean = given.labels[:-1].sum(dim=1) / records
    scatter = given.features[:width, :width] - records * torch.outer(mean, mean)
    roots = scatter.diagonal().clamp(min=0).sqrt()
    # What float32's rounding leaves of a constant is no scatter.
    noise = 2.0**-11 * given.features.diagonal()[:width].clamp(min=0).sqrt()
    roots = torch.where(roots > noise, roots, 0.0)
    inverse = torch.where(roots > 0, 1 / roots, 0.0)
    found = (scatter * inverse * inverse[:, None]).clamp(-1, 1)
    return Correlations(triangle(found.half(), above=1), roots.float(), given.labels.float())


def restored(given: Correlations, intercept: float) -> Moments:
    """The moments that `correlated` wrote, in float64, but for its rounding.

    Args:
        given: of any number of records.
        intercept: the constant beside the features.
    """
    labels, roots = given.labels.double(), given.roots.double()
    # Counts are whole numbers, whatever float32 made of their product with the intercept.
    counts = (labels[-1] / intercept).round()
    labels = torch.cat([labels[:-1], intercept * counts[None]])
    sums, records = labels[:-1].sum(dim=1), counts.sum()
    width = len(roots)
    scatter = symmetric(given.correlations.double(), width, above=1).fill_diagonal_(1)
    scatter *= roots * roots[:, None]
    features = labels.new_empty(width + 1, width + 1)
    features[:-1, :-1] = scatter + torch.outer(sums, sums) / records.clamp(min=1)
    features[-1, :-1] = features[:-1, -1] = intercept * sums
    features[-1, -1] = intercept**2 * records
    return Moments(features, labels)


def discriminant(
    given: Moments, penalty: float, intercept: float, *, quickly: bool = False
) -> Tensor:
    """The weights W (D, C) of linear discriminant analysis, for phi = (features, intercept).

    Fisher 1936. A class's score is that of a Gaussian about its mean with the covariance that all
    share, within classes, whose scatter is shrunk by `penalty`; classes without records get the
    least score. Negative eigenvalues, and negative counts, which noise makes, count as 0.

    Args:
        given: exact, rounded or noisy.
        penalty: > 0.
        intercept: the constant beside the features.
        quickly: as in `ridge`.

    Raises:
        ValueError: the penalty is not above 0.
    """
    counts = (given.labels[-1] / intercept).clamp(min=0)
    held, records = counts.clamp(min=1), counts.sum().clamp(min=1)
    means = given.labels[:-1] / held
    within = given.features[:-1, :-1] - (counts * means) @ means.T
    weight = records * _solved(within, means, penalty, quickly=quickly)
    bias = (held / records).log() - (weight * means).sum(dim=0) / 2
    return torch.cat([weight, bias[None] / intercept])


def triangle(matrix: Tensor, *, above: int = 0) -> Tensor:
    """The upper triangle of a matrix (D, D), row by row, with its diagonal: (D (D + 1) / 2,).

    With `above = 1` it is without its diagonal.
    """
    return torch.cat([row[place + above :] for place, row in enumerate(matrix)])


def symmetric(upper: Tensor, width: int, *, above: int = 0) -> Tensor:
    """The symmetric matrix (D, D) that `triangle` took apart; a diagonal that it left out is 0.

    Raises:
        ValueError: the triangle is not of that width.
    """
    side = width - above
    if upper.shape != (side * (side + 1) // 2,):
        raise ValueError(f"Expected the triangle of width {width}, got {tuple(upper.shape)}.")
    matrix = upper.new_zeros(width, width)
    # Row by row: an index for each number would take more memory than the numbers.
    for place, row in enumerate(torch.split(upper, list(range(side, 0, -1)))):
        matrix[place, place + above :] = row
        matrix[place + above :, place] = row
    return matrix
