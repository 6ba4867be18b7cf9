"""Early exits that learn from the deepest: a network is its own teacher.

Zhang et al. 2019, "Be Your Own Teacher", arXiv:1905.08094.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from fedkd.config import Frozen, Optimisation
from fedkd.data.types import Samples
from fedkd.learning.loop import OnEpoch, fit
from fedkd.learning.ways.base import StudentRun
from fedkd.models.exits import ExitOutput, Exits, attach
from fedkd.tasks import Likelihood
from fedkd.tasks.likelihoods.categorical import CATEGORICAL


class EarlyExits(Frozen):
    """Parameters of `early-exits`."""

    exits: tuple[str, ...] = Field(min_length=1)
    """The student's layers after which there is an exit, such as `["pool1"]`."""
    deepest: str | None = None
    """The layer whose features the exits' are pulled to; the last features unless given."""
    imitation: float = Field(default=0.1, ge=0, le=1)
    """Of an exit's loss, the share of the divergence from the deepest answer; that of the loss on
    the labels is the rest."""
    temperature: float = Field(default=3.0, gt=0)
    """Of that divergence."""
    hint: float = Field(default=0.03, ge=0)
    """The weight of the mean squared distance of an exit's features to the deepest."""
    keep: bool = False
    """Whether the student keeps its exits, and answers with the mean of all; else it drops them."""


def early_loss(
    early: ExitOutput,
    deepest: ExitOutput,
    y: Tensor,
    *,
    imitation: float,
    temperature: float,
    hint: float,
    likelihood: Likelihood = CATEGORICAL,
) -> Tensor:
    """(1 - a) NLL + a * divergence from the deepest + b * mean squared distance of features.

    Per sample; for classes cross-entropy, and T^2 KL(deepest || early). No gradient reaches the
    deepest. The paper's distance is a sum; the mean makes b mean the same for features of any
    number.

    Args:
        early: N answers and features of an early exit.
        deepest: likewise.
        y: targets (N, *T).
        imitation: a in [0, 1].
        temperature: T > 0.
        hint: b, at least 0.
        likelihood: of targets by answers; that of classes unless given.

    Returns:
        (N,).

    Raises:
        ValueError: shapes differ, or the temperature is not positive.
    """
    taught = likelihood.nll(early.logits, y)
    told = likelihood.divergence(early.logits, deepest.logits.detach(), temperature=temperature)
    distance = (early.features - deepest.features.detach()).square().mean(dim=1)
    return (1 - imitation) * taught + imitation * told + hint * distance


def train(
    model: Exits,
    samples: Samples,
    optimisation: Optimisation,
    generator: torch.Generator,
    *,
    imitation: float,
    temperature: float,
    hint: float,
    likelihood: Likelihood = CATEGORICAL,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """Minimise the NLL of targets at the deepest exit and `early_loss` at the others, all at once.

    Args:
        model: network and exits, trained in place.
        samples: inputs and targets.
        optimisation: see `loop.fit`.
        generator: see `loop.fit`.
        imitation: see `early_loss`.
        temperature: see `early_loss`.
        hint: see `early_loss`.
        likelihood: see `early_loss`.
        on_epoch: see `loop.fit`.

    Returns:
        The mean loss of each epoch, summed over exits.

    Raises:
        FederationError: training diverged.
    """

    def loss(_model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        *early, deepest = model.leave(x)
        total = likelihood.nll(deepest.logits, y)
        for each in early:
            total = total + early_loss(
                each,
                deepest,
                y,
                imitation=imitation,
                temperature=temperature,
                hint=hint,
                likelihood=likelihood,
            )
        return total

    rows = (samples.x, samples.y)
    moved = likelihood.moved
    return fit(model, rows, loss, optimisation, generator, moved=moved, on_epoch=on_epoch)


def with_exits(
    network: nn.Module, params: EarlyExits, shape: tuple[int, ...], generator: torch.Generator
) -> Exits:
    """The network and its exits.

    Raises:
        ConfigError: see `models.exits.attach`.
    """
    return attach(network, params.exits, deepest=params.deepest, shape=shape, generator=generator)


def remake(
    fresh: nn.Module,
    _teachers: tuple[nn.Module, ...],
    params: EarlyExits,
    shape: tuple[int, ...],
    generator: torch.Generator,
) -> nn.Module:
    """What the student will be in the end."""
    model = with_exits(fresh, params, shape, generator)
    return model if params.keep else fresh


def learn(run: StudentRun, params: EarlyExits) -> nn.Module:
    """The way `early-exits`: a student that learned with exits, which it keeps or drops."""
    network = run.plain_student()
    model = with_exits(network, params, run.data.shape, run.stream("exits model"))
    run.stage(
        "student",
        model,
        lambda on_epoch: train(
            model,
            run.data.train,
            run.training,
            run.stream("student batches"),
            imitation=params.imitation,
            temperature=params.temperature,
            hint=params.hint,
            likelihood=run.task.likelihood,
            on_epoch=on_epoch,
        ),
        epochs=run.training.epochs,
        scored=model if params.keep else network,
    )
    return model if params.keep else network
