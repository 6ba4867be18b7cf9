"""Co-Boosting: made-up samples and the ensemble's weights improve each other.

Dai et al. 2024, arXiv:2402.15070.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedkd import devices
from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.learning import consensus, loop, optim
from fedkd.learning.data_free.synthesis import Synthetic
from fedkd.learning.ensemble import Ensemble
from fedkd.learning.loop import OnEpoch, descend
from fedkd.learning.offline import Loss
from fedkd.models import call

_TEMPERATURE = 4.0
"""Of the ensemble's answer while samples are perturbed."""


def train(
    student: nn.Module,
    ensemble: Ensemble,
    make: Callable[[int], Synthetic],
    loss: Loss,
    optimisation: Optimisation,
    rng: Callable[[int], torch.Generator],
    *,
    perturbation: float,
    weight_step: float,
    weight_step_decay: float,
    on_epoch: OnEpoch | None = None,
) -> Samples:
    """Each epoch make a batch, weigh the teachers anew, pass over the pool, perturbed.

    The new batch is made by the ensemble as the last epoch left it, and joins the pool after the
    weights have moved, as in the authors' code; so the first epoch moves none.

    Args:
        student: fitted to the ensemble's answers in place, by one optimiser throughout.
        ensemble: its `average` becomes the weighted mean of logits, at first with equal weights.
        make: the batch of an epoch, from 1, such as by `synthesise`.
        loss: student logits and the ensemble's; see `offline.Loss`.
        optimisation: of the student; `epochs` is the number of batches, and a schedule moves from
            epoch to epoch. Weights take a step for each batch of its size.
        rng: the source of an epoch's draws.
        perturbation: how far a sample's entries move; see `perturbed`.
        weight_step: how far a weight moves in one step of the first epoch.
        weight_step_decay: by what that is multiplied each epoch.
        on_epoch: see `loop.fit`.

    Returns:
        The pool, with the labels that were aimed at.

    Raises:
        FederationError: training diverged.
    """
    weights = torch.full((len(ensemble),), 1 / len(ensemble))
    ensemble.average = partial(consensus.weighted, weights=weights)
    optimiser = optim.build(student.parameters(), optimisation)
    batches: list[Synthetic] = []
    told: list[Tensor] = []
    for epoch in range(1, optimisation.epochs + 1):
        made, draws = make(epoch), rng(epoch)
        if batches:
            y = torch.cat([batch.y for batch in batches])
            rate = weight_step * weight_step_decay ** (epoch - 1)
            weights = reweighed(
                weights, torch.cat(told, dim=1), y, rate, optimisation.batch_size, draws
            )
            ensemble.average = partial(consensus.weighted, weights=weights)
        batches.append(made)
        told.append(ensemble.logits(made.x))
        pool = torch.cat([batch.x for batch in batches])
        value = _pass_over(
            pool, student, ensemble, loss, optimiser, optimisation, draws, epoch - 1, perturbation
        )
        if on_epoch is not None:
            on_epoch(epoch, value)
    return Samples(pool, torch.cat([batch.y for batch in batches]))


def _pass_over(
    pool: Tensor,
    student: nn.Module,
    ensemble: Ensemble,
    loss: Loss,
    optimiser: torch.optim.Optimizer,
    optimisation: Optimisation,
    rng: torch.Generator,
    done: int,
    perturbation: float,
) -> float:
    """The student's mean loss of one pass; the epochs that are done set its learning rate."""

    def step(_position: float, batch: Sequence[Tensor]) -> float:
        seen = perturbed(ensemble, batch[0], perturbation, rng)
        answer = ensemble.answer(seen)
        return descend(
            optimiser, lambda: loss(call.answer(student, seen), answer).mean(), optimisation, done
        )

    student.train()
    once = optimisation.model_copy(update={"epochs": 1})
    [value] = loop.epochs((pool,), step, once, rng, device=devices.of(student))
    student.eval()
    return value


def perturbed(ensemble: Ensemble, x: Tensor, size: float, rng: torch.Generator) -> Tensor:
    """Samples moved to where the ensemble answers otherwise: output diversified, one sign step.

    x + size * sign(gradient of sum u * softmax(answer / 4)), u uniform in [-1, 1] for each class of
    each sample: a random direction of the answer, so that a sample is another one each epoch.

    Args:
        ensemble: answers the samples; its weights are constants.
        x: samples (N, *shape).
        size: how far each entry moves, at least 0; nothing is clipped to a range.
        rng: the source of u.
    """
    leaf = x.detach().requires_grad_()
    answer = ensemble.average(ensemble.observe(leaf).logits)
    direction = 2 * torch.rand(answer.shape, generator=rng).to(x.device) - 1
    along = (direction * torch.softmax(answer / _TEMPERATURE, dim=1)).sum()
    (slope,) = torch.autograd.grad(along, leaf)
    return x + size * slope.sign()


def reweighed(
    weights: Tensor, logits: Tensor, y: Tensor, step: float, batch_size: int, rng: torch.Generator
) -> Tensor:
    """The teachers' weights after sign steps down the cross-entropy of their weighted logits.

    For each shuffled batch w <- clip(w - step * sign(gradient), 0, 1). A step that would leave
    nobody any weight is not taken.

    Args:
        weights: (K,), at least 0, not all 0.
        logits: of the teachers on all samples, (K, N, C).
        y: the labels that were aimed at, (N,).
        step: at least 0.
        batch_size: samples of one step.
        rng: the source of the shuffle.
    """
    for rows in torch.split(torch.randperm(len(y), generator=rng), batch_size):
        leaf = weights.detach().requires_grad_()
        loss = F.cross_entropy(consensus.weighted(logits[:, rows], leaf), y[rows])
        (slope,) = torch.autograd.grad(loss, leaf)
        moved = (weights - step * slope.sign()).clamp(0, 1)
        weights = moved if moved.any() else weights
    return weights
