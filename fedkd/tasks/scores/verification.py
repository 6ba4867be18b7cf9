"""Scores of embeddings: are two records of one identity, and who is somebody.

Pairs are those of the records that are scored together. Their angles are counted in bins, as a list
of all would tell more of a party's records than a score, and could not be added.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fedkd.knowledge.geometry import unit
from fedkd.specs import TensorSpec
from fedkd.tasks.base import Score

BINS = 1024
"""Of the angle between two answers, from 0 to pi: 0.18 degrees each."""
_ROWS = 1024
"""Of the matrix of cosines, held at a time."""


def true_accepts(name: str, false_accepts: float) -> Score:
    """TAR at FAR: the share of pairs of one identity that are accepted where few others are.

    Accepted are pairs below an angle: the largest edge of a bin at which at most the share
    `false_accepts` of the pairs of two identities is. So pairs of one bin count as tied, and the
    figure is never above that of exact angles, and at least that of an edge below the exact one.
    Null where there is no pair of one identity, or of two.

    Counters are pairs by angle, int64 (2, BINS): of two identities, and of one.

    Args:
        name: of the score.
        false_accepts: FAR, in (0, 1).
    """

    def read(counters: Tensor, _totals: Tensor) -> dict[str, float | None]:
        impostors, genuine = counters.double().cumsum(dim=1)
        if not (impostors[-1] > 0 and genuine[-1] > 0):
            return {score.figure: None}
        accepted = int((impostors <= false_accepts * impostors[-1]).sum())
        share = genuine[accepted - 1] / genuine[-1] if accepted else genuine.new_zeros(())
        return {score.figure: float(share)}

    score = Score(
        name,
        _pairs_by_angle,
        read,
        TensorSpec((2, BINS), torch.int64, low=0),
        totals=_pairs,
        together=True,
    )
    return score


def _pairs_by_angle(answers: Tensor, targets: Tensor) -> Tensor:
    rows = unit(answers.double(), dim=-1)
    counts = torch.zeros(2 * BINS, dtype=torch.int64)
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        # An answer that is no number is opposite to all others.
        cosines = (rows[part] @ rows.T).nan_to_num(nan=-1.0).clamp(-1, 1)
        bins = (cosines.acos() / math.pi * BINS).long().clamp(max=BINS - 1)
        same = targets[part, None] == targets
        once = torch.ones_like(same).triu(diagonal=start + 1)
        counts += torch.bincount((same * BINS + bins)[once], minlength=2 * BINS)
    return counts.reshape(2, BINS)


def _pairs(targets: Tensor) -> Tensor:
    """How many pairs of two identities there are, and of one: int64 (2, 1)."""
    sizes = torch.bincount(targets)
    both = math.comb(len(targets), 2)
    genuine = int((sizes * (sizes - 1) // 2).sum())
    return torch.tensor([[both - genuine], [genuine]])


def first_ranked() -> Score:
    """Rank-1 identification: the share of probes whose nearest of the gallery is of their identity.

    The gallery is the first record of each identity, probes are all others. Null without probes.
    Counters are the right ones, int64 (1,).
    """

    def tally(answers: Tensor, targets: Tensor) -> Tensor:
        gallery, probes = _enrolled(targets)
        rows = unit(answers.double(), dim=-1).nan_to_num(nan=0.0)
        nearest = (rows[probes] @ rows[gallery].T).argmax(dim=1)
        return (targets[gallery][nearest] == targets[probes]).sum().reshape(1)

    def totals(targets: Tensor) -> Tensor:
        return torch.tensor([len(_enrolled(targets)[1])])

    def read(right: Tensor, probes: Tensor) -> dict[str, Any]:
        return {"rank_1": int(right) / int(probes) if int(probes) else None}

    counts = TensorSpec((1,), torch.int64, low=0)
    return Score("rank-1", tally, read, counts, totals=totals, together=True)


def _enrolled(targets: Tensor) -> tuple[Tensor, Tensor]:
    """The indices of the first record of each identity, and of all others."""
    order = targets.argsort(stable=True)
    new = torch.ones(len(targets), dtype=torch.bool)
    new[1:] = targets[order][1:] != targets[order][:-1]
    return order[new], order[~new].sort().values


SCORES: dict[str, Callable[[], Score]] = {
    "tar-at-far-1e-2": partial(true_accepts, "tar-at-far-1e-2", 0.01),
    "tar-at-far-1e-3": partial(true_accepts, "tar-at-far-1e-3", 0.001),
    "rank-1": first_ranked,
}
"""By name; each makes a score."""
