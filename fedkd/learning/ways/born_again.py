"""Born-again networks: a model teaches the next one of its kind.

Furlanello et al. 2018, arXiv:1805.04770.
"""

from collections.abc import Sequence

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from fedkd.config import Frozen, Optimisation
from fedkd.data.types import Samples
from fedkd.learning import consensus, evaluate, supervised
from fedkd.learning.consensus import average_probabilities
from fedkd.learning.loop import OnEpoch, fit
from fedkd.learning.ways.base import StudentRun
from fedkd.models import call
from fedkd.tasks import Likelihood
from fedkd.tasks.likelihoods.categorical import CATEGORICAL


class BornAgain(Frozen):
    """Parameters of `born-again`."""

    generations: PositiveInt = 2
    """Reborn after the first, which learns from labels alone; the last is the student."""
    labels: float = Field(default=1.0, ge=0)
    """Of the loss on the labels, cross-entropy for classes; 0: the teacher's answers alone."""
    weight: float = Field(default=1.0, ge=0)
    """The weight of the divergence from the generation before."""
    temperature: float = Field(default=1.0, gt=0)
    """Of that divergence; the paper's is 1."""
    ensemble: bool = False
    """Whether a generation learns from the mean of all before it, of classes their mean
    probability, not from the last."""


def next_generation(
    student: nn.Module,
    parents: Sequence[nn.Module],
    samples: Samples,
    optimisation: Optimisation,
    generator: torch.Generator,
    *,
    labels: float = 1.0,
    weight: float = 1.0,
    temperature: float = 1.0,
    likelihood: Likelihood = CATEGORICAL,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """One generation: minimise labels * NLL + weight * the divergence from the parents.

    For classes cross-entropy, and T^2 KL(parents || student).

    Args:
        student: fresh, of another seed than its parents; trained in place.
        parents: one model, or several whose mean teaches, of classes their mean probability; they
            stay as they are.
        samples: inputs and targets.
        optimisation: see `loop.fit`.
        generator: see `loop.fit`.
        labels: the weight of the negative log-likelihood, at least 0.
        weight: the weight of the divergence, at least 0.
        temperature: T > 0.
        likelihood: of targets by answers; that of classes unless given.
        on_epoch: see `loop.fit`.

    Returns:
        The mean loss of each epoch.

    Raises:
        ValueError: there is no parent.
        FederationError: training diverged.
    """
    if not parents:
        raise ValueError("0 parents: expected at least 1 for a generation to learn from")
    mean = average_probabilities if likelihood is CATEGORICAL else consensus.of_task(likelihood)
    told = mean(torch.stack([evaluate.answers(parent, samples.x) for parent in parents]))

    def loss(model: nn.Module, x: Tensor, y: Tensor, told: Tensor) -> Tensor:
        answer = call.answer(model, x)
        divergence = likelihood.divergence(answer, told, temperature=temperature)
        return labels * likelihood.nll(answer, y) + weight * divergence

    rows = (samples.x, samples.y, told)
    return fit(student, rows, loss, optimisation, generator, on_epoch=on_epoch)


def learn(run: StudentRun, params: BornAgain) -> nn.Module:
    """The way `born-again`: the last of several generations."""
    family: list[nn.Module] = []
    likelihood = run.task.likelihood
    for generation in range(params.generations + 1):
        # The last one begins and is shuffled as the plain student is, which it is compared with.
        last = generation == params.generations
        purpose = "student" if last else f"generation {generation}"
        child = run.build(run.distillation.student.model, purpose=purpose)

        def train(on_epoch: OnEpoch, child: nn.Module = child, purpose: str = purpose) -> None:
            data, how = run.data.train, run.training
            batches = run.stream(f"{purpose} batches")
            if not family:
                supervised.train(
                    child, data, how, batches, likelihood=likelihood, on_epoch=on_epoch
                )
                return
            next_generation(
                child,
                family if params.ensemble else family[-1:],
                data,
                how,
                batches,
                labels=params.labels,
                weight=params.weight,
                temperature=params.temperature,
                likelihood=likelihood,
                on_epoch=on_epoch,
            )

        run.stage(f"generation {generation}", child, train, epochs=run.training.epochs)
        family.append(child)
    return family[-1]
