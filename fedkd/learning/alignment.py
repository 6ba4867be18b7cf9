"""Bringing a teacher near to another domain than the one that it learns in, without labels there.

`batch-norm`: a trained model's BatchNorm statistics become those of the other domain (AdaBN, Li et
al. 2016, arXiv:1603.04779). `coral`: while the model learns, the covariances of its features in
both domains are drawn together (Deep CORAL, Sun & Saenko 2016, arXiv:1607.01719).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedkd import devices
from fedkd.config import Alignment
from fedkd.errors import ConfigError
from fedkd.knowledge.checks import has_shape
from fedkd.learning.evaluate import evaluating
from fedkd.learning.teacher_statistics import feature_width, with_features
from fedkd.models import call
from fedkd.rows import Rows, batches, length, moved, one

_BATCH = 256


def check(
    choice: Alignment,
    model: nn.Module,
    shape: tuple[int, ...],
    batch_size: int,
    records: int,
    *,
    key: str,
    spec: str,
) -> None:
    """Refuse a model that has nothing to align, and what cannot be compared or has no variance.

    Args:
        choice: how teachers are aligned.
        model: a teacher's.
        shape: of one input; () where that is a table.
        batch_size: of its training.
        records: of the other domain.
        key: where the configuration says the choice.
        spec: the model by name.

    Raises:
        ConfigError: it has no BatchNorm, or no last linear layer whose inputs are features; inputs
            are tables, batches have one record, or the other domain has.
    """
    if records < 2:
        raise ConfigError(
            f"{key} is {choice.name!r}, which needs the variance of the proxy set, and "
            f"data.public.size is {records}: raise it, or leave {choice.name!r} out"
        )
    if choice.name == "batch-norm" and not _norms(model):
        raise ConfigError(
            f"{key} is 'batch-norm', and model {spec} has no BatchNorm whose statistics could be "
            "those of the proxy set: choose a model with it, 'coral', or leave it out"
        )
    if choice.name != "coral":
        return
    feature_width(model)  # refuses a model without features
    if shape == ():
        raise ConfigError(
            f"{key} is 'coral', which compares records of one tensor, and a teacher sees several "
            "views: let it see one by clients.views, or leave it out"
        )
    if batch_size < 2:
        raise ConfigError(
            f"{key} is 'coral', which compares covariances of batches, and "
            "clients.training.batch_size is 1: raise it, or leave 'coral' out"
        )


def _norms(model: nn.Module) -> list[_BatchNorm]:
    """The layers that keep statistics of what passes them."""
    return [
        each
        for each in model.modules()
        if isinstance(each, _BatchNorm) and each.running_mean is not None
    ]


@torch.no_grad()
def restate(model: nn.Module, x: Rows) -> None:
    """Give a model's BatchNorm layers the statistics of other inputs, in place; no weight changes.

    Layer by layer all at once, as in AdaBN: each layer sees what the one before gives under the
    statistics of its own batch; the mean over batches of `_BATCH` inputs is kept.

    Args:
        model: its mode is left as it was.
        x: at least 2 inputs of the other domain.
    """
    norms = _norms(model)
    before = [norm.momentum for norm in norms]
    with evaluating(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        for batch in batches(x, _BATCH, exact=True):
            if length(batch) > 1:  # one record alone has no variance
                call.answer(model, moved(batch, devices.of(model)))
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.eval()


def coral(source: Tensor, target: Tensor) -> Tensor:
    """The distance of two covariances: ||C_s - C_t||_F^2 / (4 D^2), Sun & Saenko 2016.

    Args:
        source: features (N, D) of at least 2 records.
        target: features (M, D) of at least 2 others.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: the widths differ.
    """
    width = source.shape[1]
    has_shape((len(target), width), target=target)
    apart = torch.cov(source.T) - torch.cov(target.T)
    return apart.square().sum() / (4 * width**2)


def beside(
    choice: Alignment | None, x: Rows | None, batch_size: int, generator: torch.Generator
) -> Callable[[nn.Module, Tensor], Tensor] | None:
    """What `coral` adds to the loss of a model and a batch of its own inputs; else None.

    Args:
        choice: None: nothing is aligned.
        x: inputs of the other domain, of which each step draws a batch.
        batch_size: how many are drawn.
        generator: draws them.
    """
    if choice is None or choice.name != "coral" or x is None:
        return None

    def term(model: nn.Module, own: Tensor) -> Tensor:
        if len(own) < 2:  # all that a client has: one record has no covariance
            return own.new_zeros(())
        places = torch.randint(len(x), (batch_size,), generator=generator)
        others = one(x[places]).to(own.device)
        features = (with_features(model, each)[1] for each in (own, others))
        return choice.weight * coral(*features)

    return term


def after(choice: Alignment | None, model: nn.Module, x: Rows | None) -> None:
    """What `batch-norm` does to a model that has learned: see `restate`; else nothing."""
    if choice is not None and choice.name == "batch-norm" and x is not None:
        restate(model, x)
