"""How alike a party's own records and the proxy set are: a weight for what it says of the latter.

A teacher may be wrong and sure of it where it knows nothing. That does not show in its answers, but
where its data is can be compared with where it is asked: Ben-David et al. 2010, Machine Learning
79, bound the error of a model in another domain by how well the two can be told apart.
"""

import torch
from torch import Tensor, nn

from fedkd import rng
from fedkd.learning import evaluate
from fedkd.models.fixed.random_filters import RandomFilters, RandomFiltersOptions
from fedkd.rows import Rows, shape_of, whole

LEAST = 1e-3
"""Nobody is quite silent, so that where all are strange all weigh the same."""
_RIDGE = 0.01
"""The penalty on squared weights of standardised features, beside a mean squared error."""


def familiarity(own: Rows, proxy: Rows, generator: torch.Generator) -> float:
    """How alike two sets of records are: 1 where they cannot be told apart, near 0 where all can.

    It is the error of telling them apart: of a linear fit of +1 for own records and -1 for others,
    the mean squared error on records that it was not fitted to, both sets with the same weight.
    That of the best function is the overlap of their densities, the integral of 2 p q / (p + q)
    (one less the divergence of Le Cam 1986); a linear one can only see more of it. Each half of
    the records is held against the fit of the other half, so that a few records are not strange
    because there are few.

    Args:
        own: N records; a single one has no other half, and is as unlike as can be.
        proxy: M records of the same shape: rows (F,), or images (C, H, W), of which features are
            the mean responses of random filters: these know more of texture than of what is shown.
        generator: draws filters and halves.

    Returns:
        From `LEAST` to 1.
    """
    if min(len(own), len(proxy)) < 2:
        return LEAST
    ours, others = _features((own, proxy), generator)
    sides = torch.cat([torch.ones(len(ours)), -torch.ones(len(others))]).double()
    weights = torch.where(sides > 0, sides / len(ours), -sides / len(others))
    halves = torch.cat([torch.randperm(len(x), generator=generator) % 2 for x in (ours, others)])
    x = torch.cat([ours, others]).double()
    spread = x.std(dim=0)
    x = (x - x.mean(dim=0)) / torch.where(spread > 0, spread, 1.0)
    x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    error = 0.0
    for half in (0, 1):
        fitted, held = halves != half, halves == half
        weighed = (x[fitted] * weights[fitted, None]).T
        penalty = _RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
        fit = torch.linalg.solve(weighed @ x[fitted] + penalty, weighed @ sides[fitted])
        away = (x[held] @ fit - sides[held]).square()
        error += float((weights[held] * away).sum()) / 2
    return min(max(error, LEAST), 1.0)


def _features(parts: tuple[Rows, Rows], generator: torch.Generator) -> tuple[Tensor, ...]:
    """Rows as they are, flat; of images what random filters answer, (N, F)."""
    shape = shape_of(parts[0])
    if len(shape) != 3:
        return tuple(whole(part).flatten(1) for part in parts)
    with rng.torch_default(generator):
        front: nn.Module = RandomFilters(shape[0], RandomFiltersOptions(pool=1))
    return tuple(evaluate.answers(front, part) for part in parts)
