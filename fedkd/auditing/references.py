"""Reference models: trained by the auditor, who knows which of them learnt from which candidate."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedkd.auditing.scores import Scores, log_odds
from fedkd.data.types import Samples, joined
from fedkd.learning import evaluate


@dataclass(frozen=True, slots=True)
class References:
    """What R reference models answer."""

    odds: Scores
    """Log-odds (R, m) of the candidates' targets."""
    included: NDArray[np.bool_]
    """(R, m): which of them learnt from which candidate."""
    population: Scores
    """Log-odds (R, Z) of records that none of them learnt."""


def train(
    fit: Callable[[Samples, int], nn.Module],
    base: Samples,
    candidates: Samples,
    population: Samples,
    *,
    count: int,
    generator: torch.Generator,
    advance: Callable[[], None],
    odds: Callable[[Tensor, Tensor], Scores] = log_odds,
) -> References:
    """Train `count` models on `base` and a random half of the candidates each.

    Args:
        fit: trains a fresh model on samples; the number of the reference is for its random streams.
        base: records that every reference learns.
        candidates: m records.
        population: Z records that no model learns.
        count: R >= 2, even: a candidate is in one of each pair, and not in the other.
        generator: which half each learns.
        advance: called when a reference is done.
        odds: of targets by answers, see `scores.odds_of`; those of classes unless given.
    """
    candidate_odds: list[Tensor] = []
    population_odds, included = [], []
    for pair in range(count // 2):
        half = torch.rand(len(candidates), generator=generator) < 0.5
        for number, chosen in enumerate((half, ~half)):
            learnt = candidates.subset(chosen.nonzero().flatten())
            model = fit(joined(base, learnt), 2 * pair + number)
            answers = evaluate.answers(model, candidates.x)
            candidate_odds.append(torch.from_numpy(odds(answers, candidates.y)))
            others = evaluate.answers(model, population.x)
            population_odds.append(torch.from_numpy(odds(others, population.y)))
            included.append(chosen)
            advance()
    return References(
        torch.stack(candidate_odds).numpy(),
        torch.stack(included).numpy(),
        torch.stack(population_odds).numpy(),
    )
