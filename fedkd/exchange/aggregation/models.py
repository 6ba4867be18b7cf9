"""Robust rules for equal models, state dicts of the same names and shapes.

A model is a point with one coordinate a parameter, BatchNorm's running statistics among them. All
rules compute in float64 and count clients alike, since what they say that they hold is their own
word; of integer tensors, such as BatchNorm's batch counters, each takes the lower median.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedkd.exchange.aggregation import answers, points
from fedkd.exchange.aggregation.answers import check_liars
from fedkd.exchange.aggregation.points import LEAST
from fedkd.exchange.messages import Tensors

_CLIPPINGS = 5
"""How often the centre moves by clipped steps."""
_LARGEST = 1e140
"""No entry counts as farther out, so that sums of squares are finite."""


def median(models: Sequence[Tensors]) -> dict[str, Tensor]:
    """The median of each parameter. Yin et al. 2018, arXiv:1803.01498.

    With f < K / 2 hostile clients each parameter lies between honest ones.
    """
    return _by_name(models, answers.median)


def trimmed_mean(models: Sequence[Tensors], liars: int) -> dict[str, Tensor]:
    """Of each parameter the mean without the `liars` least and largest. Yin et al. 2018.

    arXiv:1803.01498.

    Raises:
        ValueError: nothing would be left.
    """
    return _by_name(models, lambda rows: answers.trimmed_mean(rows, liars))


def geometric_median(models: Sequence[Tensors]) -> dict[str, Tensor]:
    """The model with the least sum of distances to the clients'. RFA, arXiv:1912.13445.

    Pillutla et al. 2022; by Weiszfeld's algorithm, smoothed, from the `median` on. With f < K / 2
    hostile clients it is no further from any point than 2 (K - f) / (K - 2 f) times the farthest
    honest model is.
    """
    return _at(models, points.central(_products(models)))


def multi_krum(models: Sequence[Tensors], liars: int) -> dict[str, Tensor]:
    """The mean of the K - f - 2 models whose K - f - 2 nearest others are nearest.

    Blanchard et al. 2017, arXiv:1703.02757; f is `liars`.

    Raises:
        ValueError: fewer than 2 f + 3 models.
    """
    check_liars(len(models), liars, least=2 * liars + 3)
    order = _by_krum(points.squares(_products(models)), list(range(len(models))), liars)
    chosen = order[: len(models) - liars - 2]
    weights = torch.zeros(len(models), dtype=torch.float64)
    weights[chosen] = 1 / len(chosen)
    return _at(models, weights)


def bulyan(models: Sequence[Tensors], liars: int) -> dict[str, Tensor]:
    """Krum chooses K - 2 f models one by one; of each parameter the mean of the most central.

    El Mhamdi et al. 2018, arXiv:1802.07927: of the K - 2 f chosen, the K - 4 f nearest to their
    median; f is `liars`.

    Raises:
        ValueError: fewer than 4 f + 3 models.
    """
    check_liars(len(models), liars, least=4 * liars + 3)
    squares, left = points.squares(_products(models)), list(range(len(models)))
    chosen: list[int] = []
    while len(chosen) < len(models) - 2 * liars:
        chosen.append(_by_krum(squares, left, liars)[0])
        left.remove(chosen[-1])
    central = len(chosen) - 2 * liars

    return _by_name([models[k] for k in chosen], lambda rows: _most_central(rows, central))


def centred_clipping(models: Sequence[Tensors]) -> dict[str, Tensor]:
    """From the `median`, steps to the mean of models of which none pulls beyond a radius.

    Karimireddy et al. 2021, arXiv:2012.10333, who start from the last round's aggregate. The radius
    is the median of the models' distances from the centre, so that no scale is to be set.
    """
    products, at = _products(models), torch.zeros(len(models), dtype=torch.float64)
    for _ in range(_CLIPPINGS):
        away = points.distances(products, at)
        pull = (answers.median(away) / away.clamp(min=LEAST)).clamp(max=1)
        at = at + (pull - pull.sum() * at) / len(models)
    return _at(models, at)


def mixed(models: Sequence[Tensors], liars: int) -> list[dict[str, Tensor]]:
    """Each model as the mean of the K - f that are nearest to it, itself among them.

    Nearest-neighbour mixing, Allouah et al. 2023, arXiv:2302.01772: before another rule, it makes
    up for honest clients' unlike data. f is `liars`.

    Raises:
        ValueError: nobody would be left.
    """
    check_liars(len(models), liars, least=2 * liars + 1)
    squares, near = points.squares(_products(models)), len(models) - liars
    shares = torch.zeros_like(squares)
    shares.scatter_(1, squares.argsort(dim=1, stable=True)[:, :near], 1 / near)
    found: list[dict[str, Tensor]] = [{} for _ in models]
    for name, first in models[0].items():
        rows = [model[name] for model in models]
        if first.is_floating_point():
            rows = list(
                (shares @ _rows(models, name)).reshape(len(models), *first.shape).to(first.dtype)
            )
        for model, row in zip(found, rows, strict=True):
            model[name] = row
    return found


def distances(models: Sequence[Tensors], centre: Tensors) -> Tensor:
    """How far models are from another, (K,), float64: L2 over all floating parameters."""
    squares = torch.zeros(len(models), dtype=torch.float64)
    for name, aim in centre.items():
        if aim.is_floating_point():
            away = _rows(models, name) - aim.double().flatten()
            squares += away.clamp(-_LARGEST, _LARGEST).square().sum(dim=1)
    return squares.sqrt()


def _by_name(models: Sequence[Tensors], together: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Each floating tensor by rows (K, *S) -> (*S), in float64; of others the lower median."""
    if not models:
        raise ValueError("no model: expected at least one")
    found = {}
    for name, first in models[0].items():
        rows = torch.stack([model[name] for model in models])
        if first.is_floating_point():
            found[name] = together(rows.double()).to(first.dtype)
        else:
            found[name] = rows.long().median(dim=0).values.to(first.dtype)
    return found


def _rows(models: Sequence[Tensors], name: str) -> Tensor:
    """A tensor of all models as float64 (K, D)."""
    return torch.stack([model[name].double().flatten() for model in models])


def _products(models: Sequence[Tensors]) -> Tensor:
    """Inner products (K, K) of models around their `median`: see `points`."""
    products = torch.zeros(len(models), len(models), dtype=torch.float64)
    for name, first in models[0].items():
        if first.is_floating_point():
            rows = _rows(models, name)
            around = (rows - answers.median(rows)).clamp(-_LARGEST, _LARGEST)
            products += around @ around.T
    return products


def _most_central(rows: Tensor, count: int) -> Tensor:
    """The mean of the `count` numbers nearest to the median, (K, *S) -> (*S)."""
    ordered = points.ordered(rows)
    centre = points.middle(ordered)
    # The nearest stand side by side.
    best = torch.full_like(centre, torch.inf)
    found = torch.empty_like(centre)
    for first in range(len(ordered) - count + 1):
        run = ordered[first : first + count]
        reach = torch.maximum(centre - run[0], run[-1] - centre)
        found = torch.where(reach < best, torch.stack(run).mean(dim=0), found)
        best = torch.minimum(best, reach)
    return found


def _by_krum(squares: Tensor, among: list[int], liars: int) -> list[int]:
    """Some models by Krum, the sum of squared distances to the n - f - 2 nearest of these.

    Two that are each other's only neighbour have the same: then by how far all K are from them.
    """
    near = max(1, len(among) - liars - 2)
    nearest = squares[among][:, among].sort(dim=1).values[:, 1 : near + 1]
    keys = zip(nearest.sum(dim=1).tolist(), squares.sum(dim=1)[among].tolist(), strict=True)
    return [k for _, k in sorted(zip(keys, among, strict=True))]


def _at(models: Sequence[Tensors], at: Tensor) -> dict[str, Tensor]:
    """The model at the point with these shares (K,), see `points`."""

    def there(rows: Tensor) -> Tensor:
        centre = answers.median(rows)
        around: Tensor = torch.tensordot(at, rows - centre, dims=1)
        return centre + around

    return _by_name(models, there)
