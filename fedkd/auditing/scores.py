"""Membership scores from what models answer; higher means a member.

A model's confidence in a record's true target is compared with that of reference models which are
known to have learnt from the record or not. Without them the loss alone decides: the baseline.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from fedkd.errors import UsageError
from fedkd.tasks import Likelihood, Task

Scores = NDArray[np.float64]
_LEAST_SPREAD = 0.05
"""Of reference models' log-odds: fewer of them would call their own agreement certainty."""
_EDGE = 1e-7
_LEAST_NLL = 1e-12
"""In nats: a target that is hit exactly is not infinitely sure."""


def log_odds(logits: Tensor, y: Tensor) -> Scores:
    """ln(p / (1 - p)) of the true label's probability p, nearly normal over trainings.

    Carlini et al. 2022, arXiv:2112.03570, section 4.

    Args:
        logits: (..., N, C).
        y: int64 (N,).

    Returns:
        (..., N).
    """
    logs = torch.log_softmax(logits.double(), dim=-1)
    index = y.expand(logits.shape[:-1])[..., None]
    log_p = logs.gather(-1, index)[..., 0]
    rest = torch.logsumexp(logs.scatter(-1, index, -torch.inf), dim=-1)
    odds: Scores = (log_p - rest).numpy()
    return odds


def check_task(task: Task) -> None:
    """Refuse a task of which no attack here knows how sure a model is of one record.

    Raises:
        UsageError: its likelihood compares the records of a batch, or says nothing of them.
    """
    if task.likelihood.couples:
        raise UsageError(
            f"task {task.name!r} is not attacked: its loss compares the records of a batch with "
            "each other, and these attacks ask how well a model knows one record alone"
        )
    if "items" in task.offers:
        raise UsageError(
            f"task {task.name!r} is not attacked: all items of a training user are in sight, of "
            "which a model says nothing, so that these attacks would find nothing whatever it "
            "learned; under [privacy] audit its noise by 'fedkd audit teacher'"
        )


def odds_of(task: Task) -> Callable[[Tensor, Tensor], Scores]:
    """(answers (..., N, *A), targets (N, *T)) -> how sure a model is of each target, (..., N).

    `log_odds` of one class a record. Of any other target ln(p / (1 - p)) with p = exp(-NLL), by the
    task's likelihood, of which one class is a case.
    """
    if "classes" in task.offers:
        return log_odds
    return partial(_target_odds, task.likelihood, len(task.answer))


def _target_odds(likelihood: Likelihood, axes: int, answers: Tensor, targets: Tensor) -> Scores:
    leading = answers.shape[: answers.dim() - axes]
    each = answers.double().reshape(-1, *answers.shape[len(leading) - 1 :])
    nll = torch.stack([likelihood.nll(one, targets) for one in each]).clamp(min=_LEAST_NLL)
    odds: Scores = -(nll + torch.log(-torch.expm1(-nll))).reshape(leading).numpy()
    return odds


def loss_threshold(odds: Scores) -> Scores:
    """The baseline: the lower the loss, the more a member. Yeom et al. 2018, arXiv:1709.01604.

    Log-odds (N,) -> scores (N,), which rise with the probability and so fall with the loss.
    """
    return odds


def lira(odds: Scores, references: Scores, included: NDArray[np.bool_]) -> Scores:
    """The likelihood ratio of a record's log-odds, learnt against not learnt.

    Carlini et al. 2022, arXiv:2112.03570: a normal distribution of each kind for each record, with
    one spread for all records, as the paper does where reference models are few. A record that is
    in none of the references, or in all, is scored by the kind that there is.

    Args:
        odds: (N,), of the model that is attacked.
        references: (R, N), of R >= 2 reference models.
        included: (R, N), which of them learnt which record.

    Raises:
        ValueError: the shapes do not fit, or there are fewer than two references.
    """
    _check(odds, references, included)
    inside, outside = _normal(references, included), _normal(references, ~included)
    likely_in = stats.norm.logpdf(odds, *inside)
    likely_out = stats.norm.logpdf(odds, *outside)
    tail = stats.norm.logcdf(odds, *outside)  # the offline attack: how far above those without it
    both = included.any(axis=0) & (~included).any(axis=0)
    scores: Scores = np.where(both, likely_in - likely_out, tail)
    return scores


def offline_lira(odds: Scores, references: Scores, included: NDArray[np.bool_]) -> Scores:
    """How far a record's log-odds lie above those of models that did not learn it.

    Carlini et al. 2022, arXiv:2112.03570, section 5.2; arguments as `lira`, each record out of at
    least one reference.
    """
    _check(odds, references, included)
    mean, spread = _normal(references, ~included)
    scores: Scores = (odds - mean) / spread
    return scores


def rmia(
    odds: Scores,
    references: Scores,
    included: NDArray[np.bool_],
    population: Scores,
    population_references: Scores,
) -> Scores:
    """The share of the population that a record's likelihood ratio dominates.

    Zarifzadeh et al. 2024, arXiv:2312.03262, with gamma 1: p(x | model) / p(x), where p(x) is the
    mean over reference models, of those without the record and of all if it is in each.

    Args:
        odds: (N,), of the model that is attacked.
        references: (R, N).
        included: (R, N).
        population: (Z,), the attacked model's log-odds of records that it did not learn.
        population_references: (R, Z).
    """
    _check(odds, references, included)
    out = ~included | ~(~included).any(axis=0)
    probability = _probability(references)
    usual = (probability * out).sum(axis=0) / out.sum(axis=0)
    ratios = _probability(odds) / usual
    others = _probability(population) / _probability(population_references).mean(axis=0)
    share: Scores = np.searchsorted(np.sort(others), ratios, side="right") / len(others)
    return share


def _normal(references: Scores, chosen: NDArray[np.bool_]) -> tuple[Scores, float]:
    """The mean of the chosen references for each record (N,), and one spread around them."""
    counts = chosen.sum(axis=0)
    means = np.where(chosen, references, 0).sum(axis=0) / np.maximum(counts, 1)
    means = np.where(counts > 0, means, references.mean(axis=0))
    freedom = max(1, int(np.maximum(counts - 1, 0).sum()))
    squares = float(np.where(chosen, (references - means) ** 2, 0).sum())
    return means, max(_LEAST_SPREAD, float(np.sqrt(squares / freedom)))


def _probability(odds: Scores) -> Scores:
    share: Scores = np.clip(1 / (1 + np.exp(-np.clip(odds, -50, 50))), _EDGE, 1)
    return share


def _check(odds: Scores, references: Scores, included: NDArray[np.bool_]) -> None:
    if references.shape != included.shape or references.shape[1:] != odds.shape:
        raise ValueError(
            f"Expected references and included (R, N) for odds {odds.shape}, got "
            f"{references.shape} and {included.shape}."
        )
    if len(references) < 2:
        raise ValueError(f"Expected at least 2 reference models, got {len(references)}.")
