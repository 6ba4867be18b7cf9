"""Online distillation: peers that learn at the same time, from labels and from each other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedkd import devices, models
from fedkd.config import Frozen, ModelSpec, Optimisation
from fedkd.data.types import Samples
from fedkd.learning import optim
from fedkd.learning.loop import OnEpoch, descend, epochs
from fedkd.learning.ways.base import StudentRun
from fedkd.models import call
from fedkd.tasks import Likelihood, Task
from fedkd.tasks.likelihoods.categorical import CATEGORICAL


class Mutual(Frozen):
    """Parameters of `mutual`."""

    peers: tuple[ModelSpec, ...] = Field(min_length=1)
    """The models that learn beside the student, trained as it is."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the divergences."""
    weight: float = Field(default=1.0, ge=0)
    """Of the mean divergence from the others."""


def train(
    peers: Sequence[nn.Module],
    samples: Samples,
    optimisation: Optimisation,
    generator: torch.Generator,
    *,
    temperature: float = 1.0,
    weight: float = 1.0,
    likelihood: Likelihood = CATEGORICAL,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """Deep mutual learning: every peer minimises `mutual`.

    Zhang et al. 2018, arXiv:1706.00384, whose temperature and weight are 1. As in the paper's
    algorithm the peers take turns on each batch, and a peer that has moved answers the batch anew
    before the next one learns from it.

    Args:
        peers: K >= 2 models, not necessarily alike; trained in place, they end in evaluation
            mode.
        samples: inputs and targets.
        optimisation: of each peer, see `loop.fit`.
        generator: the source of the shuffles.
        temperature: see `mutual`.
        weight: see `mutual`.
        likelihood: see `mutual`.
        on_epoch: see `OnEpoch`.

    Returns:
        The mean loss of each epoch, over peers.

    Raises:
        ValueError: there are fewer than two peers, or one of them is there twice.
        FederationError: training diverged.
    """
    if len(peers) < 2 or len({id(peer) for peer in peers}) < len(peers):
        raise ValueError(f"{len(peers)} peers: expected at least 2, each a model of its own")
    optimisers = [optim.build(peer.parameters(), optimisation) for peer in peers]

    def step(position: float, batch: Sequence[Tensor]) -> float:
        x, y = batch
        own = [call.answer(peer, x) for peer in peers]
        answers = [each.detach() for each in own]
        total = 0.0
        for i, peer in enumerate(peers):

            def loss(i: int = i) -> Tensor:
                others = answers[:i] + answers[i + 1 :]
                about = {"temperature": temperature, "weight": weight}
                return mutual(own[i], y, others, likelihood=likelihood, **about).mean()

            total += descend(optimisers[i], loss, optimisation, position)
            with _untracked(peer), torch.no_grad():
                answers[i] = call.answer(peer, x)
        return total / len(peers)

    for peer in peers:
        peer.train()
    losses = epochs(
        (samples.x, samples.y),
        step,
        optimisation,
        generator,
        device=devices.of(peers[0]),
        moved=likelihood.moved,
        on_epoch=on_epoch,
    )
    for peer in peers:
        peer.eval()
    return losses


def mutual(
    student: Tensor,
    y: Tensor,
    others: Sequence[Tensor],
    *,
    temperature: float = 1.0,
    weight: float = 1.0,
    likelihood: Likelihood = CATEGORICAL,
) -> Tensor:
    """NLL + weight * the mean over other peers of the divergence from them, per sample.

    For classes cross-entropy, and T^2 KL(other || student).

    The others are constants here: no gradient reaches them.

    Args:
        student: answers (N, *A), such as logits.
        y: targets (N, *T).
        others: answers (N, *A) of at least one other peer.
        temperature: T > 0.
        weight: at least 0.
        likelihood: of targets by answers; that of classes unless given.

    Returns:
        (N,), in nats.

    Raises:
        ValueError: the shapes differ, or the temperature is not positive.
    """
    divergences = [
        likelihood.divergence(student, other.detach(), temperature=temperature) for other in others
    ]
    return likelihood.nll(student, y) + weight * torch.stack(divergences).mean(0)


@contextmanager
def _untracked(model: nn.Module) -> Iterator[None]:
    """Training mode in which BatchNorm's running statistics stay as they are."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def check(task: Task, params: Mutual) -> None:
    """Refuse peers that cannot be built."""
    for spec in params.peers:
        trial = torch.Generator()
        models.build(spec, shape=task.inputs, classes=task.classes, generator=trial, task=task)


def learn(run: StudentRun, params: Mutual) -> nn.Module:
    """The way `mutual`: the student is the first of the peers."""
    student = run.student()
    others = [run.build(spec, purpose=f"peer {number}") for number, spec in enumerate(params.peers)]
    everyone = nn.ModuleList([student, *others])
    run.stage(
        "peers",
        everyone,
        lambda on_epoch: train(
            [student, *others],
            run.data.train,
            run.training,
            run.stream("student batches"),
            temperature=params.temperature,
            weight=params.weight,
            likelihood=run.task.likelihood,
            on_epoch=on_epoch,
        ),
        epochs=run.training.epochs,
        scored=student,
    )
    return student
