"""Three splits that papers all call "Dirichlet", each under its own name.

The smaller alpha, the less alike the clients. Results under one of them are no comparison for
results under another, and at alpha 0.1 two draws of the same one differ widely: use several seeds.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from fedkd.errors import ConfigError

_REDRAWS = 100


def dirichlet(
    labels: Tensor, clients: int, *, alpha: float, min_size: int, generator: Generator
) -> list[Tensor]:
    """For each class, shares over clients from Dir(alpha), with nothing to balance sizes.

    Yurochkin et al. 2019, arXiv:1905.12022. Redrawn until every client holds `min_size` samples, at
    most 100 times; then samples move, one at a time, from the largest client to the smallest until
    it does. It always terminates.

    Raises:
        ConfigError: there are fewer than `clients * min_size` samples.
    """
    return _per_class(labels, clients, alpha, min_size, generator, fair=len(labels) + 1)


def dirichlet_balanced(
    labels: Tensor, clients: int, *, alpha: float, min_size: int, generator: Generator
) -> list[Tensor]:
    """As `dirichlet`, but a client that holds N / clients samples or more gets nothing further.

    Shares of the others are renormalised: the draw of DENSE (Zhang et al. 2022, arXiv:2112.12371).
    Redrawn and topped up as `dirichlet` is.

    Raises:
        ConfigError: there are fewer than `clients * min_size` samples.
    """
    return _per_class(labels, clients, alpha, min_size, generator, fair=len(labels) / clients)


def dirichlet_client(
    labels: Tensor, clients: int, *, alpha: float, min_size: int, generator: Generator
) -> list[Tensor]:
    """Each client draws a class prior from Dir(alpha), then its samples, all clients equally many.

    The draw of Co-Boosting (Dai et al. 2024, arXiv:2402.15070). Clients take turns in random order,
    one sample at a time without replacement; a prior is renormalised over the classes that still
    have samples (uniform over them where it gives them nothing). Sizes differ by at most one, so
    that `min_size` holds by itself.

    Raises:
        ConfigError: there are fewer than `clients * min_size` samples.
    """
    enough(len(labels), clients, min_size)
    draw = _numpy(generator)
    pools = [draw.permutation(members).tolist() for members in _by_class(labels)]
    open_ = np.array([len(pool) > 0 for pool in pools])
    priors = np.stack([_shares(draw, alpha, open_) for _ in range(clients)])
    cumulative = priors.cumsum(axis=1)
    parts: list[list[int]] = [[] for _ in range(clients)]
    turns = draw.permutation(np.arange(len(labels)) % clients)
    for client, uniform in zip(turns, draw.random(len(labels)), strict=True):
        row = cumulative[client]
        label = int(row.searchsorted(uniform * row[-1], side="right"))
        parts[client].append(pools[label].pop())
        if not pools[label]:
            open_[label] = False
            cumulative = _renormalise(priors, open_).cumsum(axis=1)
    return [_sorted(part) for part in parts]


def _per_class(
    labels: Tensor, clients: int, alpha: float, min_size: int, generator: Generator, *, fair: float
) -> list[Tensor]:
    """Classes dealt one after another, to clients that hold fewer than `fair` samples so far."""
    enough(len(labels), clients, min_size)
    draw = _numpy(generator)
    classes = _by_class(labels)

    def attempt() -> list[list[int]]:
        parts: list[list[int]] = [[] for _ in range(clients)]
        for members in filter(len, classes):
            shares = _shares(draw, alpha, np.array([len(part) < fair for part in parts]))
            ends = (shares.cumsum() * len(members)).astype(int)
            # What rounding leaves over is the last sharer's, never a client's that has no share.
            ends[np.flatnonzero(shares)[-1] :] = len(members)
            pieces = np.split(draw.permutation(members), ends[:-1])
            for part, piece in zip(parts, pieces, strict=True):
                part.extend(piece.tolist())
        return parts

    return [_sorted(part) for part in _large_enough(attempt, min_size, draw)]


def _large_enough(
    attempt: Callable[[], list[list[int]]], min_size: int, draw: np.random.Generator
) -> list[list[int]]:
    """The first of 100 attempts with `min_size` in every part; else the last one, topped up."""
    for _ in range(_REDRAWS):
        parts = attempt()
        if min(map(len, parts)) >= min_size:
            return parts
    parts = [draw.permutation(part).tolist() for part in parts]
    sizes = np.array([len(part) for part in parts])
    while sizes.min() < min_size:
        small, large = sizes.argmin(), sizes.argmax()
        parts[small].append(parts[large].pop())
        sizes[small] += 1
        sizes[large] -= 1
    return parts


def _shares(
    draw: np.random.Generator, alpha: float, open_: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """A draw from Dir(alpha) over all, renormalised over those that are open (at least one).

    With a tiny alpha all mass may lie on closed ones, or underflow to 0 / 0. One open one at random
    then takes all: the limit of the distribution as alpha goes to 0.
    """
    shares = np.where(open_, draw.dirichlet(np.full(len(open_), alpha)), 0.0)
    total = shares.sum()
    if total > 0:
        return np.asarray(shares / total)
    one = np.zeros(len(open_))
    one[draw.choice(np.flatnonzero(open_))] = 1.0
    return one


def _renormalise(priors: NDArray[np.float64], open_: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each row of (clients, classes) over the open classes; uniform over them where it has none."""
    rest = np.where(open_, priors, 0.0)
    rest[rest.sum(axis=1) == 0] = open_
    return np.asarray(rest / np.maximum(rest.sum(axis=1, keepdims=True), np.finfo(float).tiny))


def _by_class(labels: Tensor) -> list[NDArray[np.int64]]:
    array = labels.numpy()
    return [np.flatnonzero(array == label) for label in range(int(array.max()) + 1)]


def _sorted(part: list[int]) -> Tensor:
    return torch.tensor(part, dtype=torch.int64).sort().values


def _numpy(generator: Generator) -> np.random.Generator:
    """A numpy generator seeded from `generator`: torch's own Dirichlet draw takes none."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))


def enough(samples: int, clients: int, min_size: int) -> None:
    """Complain unless every client can hold `min_size` samples."""
    if clients * min_size > samples:
        raise ConfigError(
            f"clients.count is {clients} and each must hold at least {min_size}, but there are "
            f"only {samples} training samples; lower clients.count"
            + (" or data.partition.min_size" if min_size > 1 else "")
        )
