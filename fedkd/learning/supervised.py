"""Learning from targets."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from fedkd import devices
from fedkd.config import Optimisation
from fedkd.data.types import Samples
from fedkd.learning.loop import OnEpoch, fit
from fedkd.models import call
from fedkd.tasks import Likelihood
from fedkd.tasks.likelihoods.categorical import CATEGORICAL

_NEVER = -30.0
"""A logarithm of no probability to speak of."""


def train(
    model: nn.Module,
    samples: Samples,
    optimisation: Optimisation,
    generator: torch.Generator,
    *,
    likelihood: Likelihood = CATEGORICAL,
    optimiser: torch.optim.Optimizer | None = None,
    anchor: Mapping[str, Tensor] | None = None,
    proximal: float = 0.0,
    offset: Tensor | None = None,
    beside: Callable[[nn.Module, Tensor], Tensor] | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[float]:
    """Minimise the negative log-likelihood, near `anchor` if `proximal` > 0, as `loop.fit` does.

    The proximal term is mu/2 ||w - anchor||^2 over the parameters, FedProx, Li et al. 2018,
    arXiv:1812.06127.

    Args:
        model: trained in place.
        samples: inputs and targets.
        optimisation: see `loop.fit`.
        generator: see `loop.fit`.
        likelihood: of targets by answers; cross-entropy of classes unless given.
        optimiser: see `loop.fit`.
        anchor: the parameters to stay near, by name; a whole state dict will do.
        proximal: mu >= 0.
        offset: (C,), added to the logits of classes while training, such as `balanced_offset`;
            None: nothing.
        beside: (model, a batch's inputs) -> a scalar that is added to each step's loss, such as
            that of `alignment.beside`; None: nothing.
        on_epoch: see `loop.fit`.

    Returns:
        The mean loss of each epoch, in nats, all terms included.

    Raises:
        ValueError: mu is negative, or positive without an anchor for every parameter; or there is
            an offset of classes, and the likelihood is not of classes.
        FederationError: training diverged.
    """
    require_anchor(model, anchor, proximal)
    require_classes(offset, likelihood)

    device = devices.of(model)
    near = {} if anchor is None or proximal == 0 else {n: t.to(device) for n, t in anchor.items()}
    offset = None if offset is None else offset.to(device)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        said = call.answer(model, x)
        value = likelihood.mean_nll(said if offset is None else said + offset, y)
        if beside is not None:
            value = value + beside(model, x)
        if not near:
            return value
        distances = [
            (parameter - near[name]).square().sum() for name, parameter in model.named_parameters()
        ]
        return value + proximal / 2 * torch.stack(distances).sum()

    return fit(
        model,
        (samples.x, samples.y),
        loss,
        optimisation,
        generator,
        optimiser=optimiser,
        moved=likelihood.moved,
        on_epoch=on_epoch,
    )


def balanced_offset(counts: Tensor) -> Tensor:
    """Class counts n (C,), at least 0 -> what balanced softmax adds to logits, float32 (C,).

    log(n_c / n), so that what the network itself learns is free of how frequent classes are: Ren et
    al. 2020, arXiv:2007.10740; Menon et al. 2021, arXiv:2007.07314. A class without samples gets
    -30, and so has no part in the loss.
    """
    share = counts.double() / counts.sum().clamp(min=1)
    return torch.where(counts > 0, share.log(), _NEVER).float()


def require_classes(offset: Tensor | None, likelihood: Likelihood) -> None:
    """Refuse an offset of what is no logits of classes.

    Raises:
        ValueError: there is an offset, and the likelihood is not `CATEGORICAL`.
    """
    if offset is not None and likelihood is not CATEGORICAL:
        raise ValueError(
            f"offset {tuple(offset.shape)} is added to logits of classes: expected None under "
            "another likelihood than the categorical one"
        )


def require_anchor(model: nn.Module, anchor: Mapping[str, Tensor] | None, proximal: float) -> None:
    """Refuse a proximal term that pulls nowhere.

    Raises:
        ValueError: mu is negative, or positive without an anchor for every parameter.
    """
    names = [name for name, _ in model.named_parameters()] if proximal else []
    missing = [name for name in names if name not in (anchor or {})]
    if proximal < 0 or missing:
        raise ValueError(
            f"proximal={proximal}: expected 0, or more with an anchor for every parameter; "
            f"missing: {', '.join(missing) or 'none'}"
        )
