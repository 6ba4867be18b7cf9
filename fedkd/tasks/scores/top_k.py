"""How good the k items are that a model would recommend: a figure a user, and its mean over users.

All items are ranked that count as targets, none is sampled: scores by a sample of items rank models
otherwise (Krichene & Rendle 2020, KDD, no arXiv). A user of whom no item is to be found is not
counted.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fedkd.specs import TensorSpec
from fedkd.tasks.base import Score
from fedkd.tasks.likelihoods.categorical import IGNORED

PerUser = Callable[[Tensor, Tensor], Tensor]
"""(hits bool (N, K) by rank, how many items are to be found (N,)) -> figures (N,) in [0, 1]."""


def ndcg(hits: Tensor, wanted: Tensor) -> Tensor:
    """DCG, by 1 / log2(1 + rank), over that of the best ranking (Jarvelin & Kekalainen 2002)."""
    discounts = 1 / torch.log2(torch.arange(2, hits.shape[1] + 2, dtype=torch.float64))
    most = discounts.cumsum(dim=0)[wanted.clamp(max=hits.shape[1]) - 1]
    return (hits * discounts).sum(dim=1) / most


def hit_rate(hits: Tensor, _wanted: Tensor) -> Tensor:
    """Whether any of them is to be found."""
    return hits.any(dim=1).double()


def recall(hits: Tensor, wanted: Tensor) -> Tensor:
    """The share of the items to be found that are among them."""
    return hits.sum(dim=1) / wanted.double()


def at(k: int, name: str, per_user: PerUser) -> Callable[[int], Score]:
    """A score of the best k items by the number of items, such as `ndcg@10`.

    Its counters are the sum of figures and the number of users, float64 (2,); no sum is above that
    of the test users with an item to be found.
    """

    def tally(answers: Tensor, targets: Tensor) -> Tensor:
        wanted = (targets == 1).sum(dim=1)
        rows = wanted > 0
        ranked = answers[rows].masked_fill(targets[rows] == IGNORED, -torch.inf)
        best = ranked.topk(min(k, ranked.shape[1]), dim=1).indices
        hits = targets[rows].gather(1, best) == 1
        figures = per_user(hits, wanted[rows])
        return torch.stack([figures.sum(), rows.sum().double()])

    def read(counters: Tensor, _totals: Tensor) -> dict[str, float | None]:
        total, users = counters.tolist()
        return {score.figure: total / users if users else None}

    def totals(targets: Tensor) -> Tensor:
        users = (targets == 1).any(dim=1).sum().double()
        # Sums of shares may round above their number.
        return torch.stack([users * (1 + 1e-9), users])

    score = Score(f"{name}@{k}", tally, read, TensorSpec((2,), torch.float64, low=0), totals)
    return lambda _items: score
