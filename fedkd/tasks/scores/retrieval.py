"""Scores of pairs: at which rank, of some candidates, a question finds its answer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedkd.specs import TensorSpec
from fedkd.tasks.base import Score
from fedkd.tasks.likelihoods.pairs import cosines_of


def ranks(answers: Tensor, targets: Tensor, candidates: int) -> Tensor:
    """Vectors (N, 2, D) and identities (N,) -> int64 (N,): each question's answer's rank, from 1.

    Candidates are the answers of `candidates` records one after the other, the question's own among
    them; of the last records they are those of as many at the end. Others of its own identity are
    left out, as they are the same answer. A candidate that is as like it as its own stands before
    it, so that a model that tells nothing apart is last.
    """
    found = torch.empty(len(targets), dtype=torch.int64)
    for start in range(0, len(targets), candidates):
        own = torch.arange(start, min(start + candidates, len(targets)))
        first = max(0, min(start, len(targets) - candidates))
        rows = slice(first, first + candidates)
        # A vector that is no number is like nothing.
        alike = cosines_of(answers[rows].double()).nan_to_num(nan=-1.0)[own - first]
        mine = alike.gather(1, (own - first)[:, None])
        others = targets[own, None] != targets[rows]
        found[own] = 1 + ((alike >= mine) & others).sum(dim=1)
    return found


def _mean(name: str, figure: Callable[[Tensor], Tensor]) -> Callable[[int], Score]:
    """A mean over questions of a figure of the rank in [0, 1]; the counter is a sum, float64."""

    def at(candidates: int) -> Score:
        def tally(answers: Tensor, targets: Tensor) -> Tensor:
            return figure(ranks(answers, targets, candidates)).double().sum().reshape(1)

        def totals(targets: Tensor) -> Tensor:
            # Sums of shares may round above their number.
            return torch.tensor([len(targets) * (1 + 1e-9)], dtype=torch.float64)

        def read(total: Tensor, most: Tensor) -> dict[str, Any]:
            count = round(float(most))
            return {score.figure: min(1.0, float(total) / count) if count else None}

        counts = TensorSpec((1,), torch.float64, low=0)
        score = Score(name, tally, read, counts, totals, together=True)
        return score

    return at


SCORES: dict[str, Callable[[int], Score]] = {
    "mrr": _mean("mrr", lambda rank: 1 / rank),
    "recall-at-1": _mean("recall-at-1", lambda rank: rank == 1),
}
"""By name; each makes a score of so many candidates."""
