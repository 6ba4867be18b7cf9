"""What DP-SGD cannot protect, found before it begins: layers, memory, coupling, wrong gradients.

A model is tried out, so what is found is a fault, and what is not found is no proof: a model may do
on some input what it does on none of those that it is tried out on.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from fedkd.config import ModelSpec, Optimisation
from fedkd.errors import ConfigError
from fedkd.learning.dp import trial
from fedkd.learning.dp.per_sample import Loss
from fedkd.models import factory
from fedkd.rng import torch_default
from fedkd.rows import Rows
from fedkd.tasks import Task

_WRITES = "write nothing in place: y = x + 1, not x += 1"


def check_model(model: nn.Module, shape: tuple[int, ...], *, like: Rows | None = None) -> None:
    """Refuse a model whose step one record can move further than its clipped gradient.

    The model is tried out in training mode, in a copy on the CPU; itself is left as it is. It is
    asked about each input alone, together, in another order and beside extreme neighbours, for
    logits and for gradients. See `fedkd.models.probes` for the inputs.

    Args:
        model: that learns.
        shape: of one input.
        like: public inputs (N, *shape) that look like the data; None: there are none.

    Raises:
        ConfigError: the model normalises by batch or running statistics, shrinks what it looks up
            (max_norm), keeps something of its inputs, lets samples touch each other, has random
            parts that are no dropout module, has nothing to train, or the gradients of its samples
            come out wrong.
    """
    _check_norms(model)
    for name, module in model.named_modules():
        running = isinstance(module, _InstanceNorm) and module.track_running_stats
        if isinstance(module, _BatchNorm) or running:
            raise ConfigError(
                f"DP-SGD cannot train layer {name!r}, {type(module).__name__}, which keeps or "
                f"shares statistics of the samples, even when frozen; {trial.ALONE}"
            )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("DP-SGD needs a model with a parameter that requires gradients")
    with torch_default(torch.Generator().manual_seed(0)), torch.enable_grad(), _one_line():
        trial.learning(copy.deepcopy(model).cpu(), shape, like)


def check_task(task: Task) -> None:
    """Refuse a task whose records have no gradients of their own.

    Raises:
        ConfigError: its likelihood compares the records of a batch.
    """
    if task.likelihood.couples:
        raise ConfigError(
            f"task {task.name!r} cannot be learned under [privacy] with unit 'record': its loss "
            "compares the records of a batch with each other, so that a record moves the gradients "
            "of others and cannot be clipped alone; leave out [privacy]"
        )


def check_training(optimisation: Optimisation, key: str) -> None:
    """Refuse what DP-SGD has no place for.

    Args:
        optimisation: how a protected model is to be trained.
        key: where the configuration says it, such as `"clients.training"`.

    Raises:
        ConfigError: gradients are to be clipped a second time.
    """
    if optimisation.clip_norm is not None:
        raise ConfigError(
            f"{key}.clip_norm is {optimisation.clip_norm:g}: DP-SGD clips each record's gradient "
            "to privacy.clip, and a clip of their noisy sum would bound the noise, not them; leave "
            "it out"
        )


def check_features(model: nn.Module, shape: tuple[int, ...], *, like: Rows | None = None) -> None:
    """Refuse a model in whose evaluation mode one record can move another's features.

    Nothing is trained, so frozen statistics, such as a BatchNorm's that was fitted to public data,
    are as good as any other constant.

    Args:
        model: a classifier; it is tried out as in `check_model`, in a copy.
        shape: of one input.
        like: see `check_model`.

    Raises:
        ConfigError: a forward pass changes the model or may (max_norm), the model is random, or it
            lets samples touch each other.
    """
    _check_norms(model)
    with _one_line():
        trial.answering(copy.deepcopy(model).cpu().eval(), shape, like)


def _check_norms(model: nn.Module) -> None:
    """Refuse layers that shrink, in place, the weights that a batch looked up.

    A trial need not show it: only weights that training has made large are shrunk.
    """
    for name, module in model.named_modules():
        if getattr(module, "max_norm", None) is not None:
            raise ConfigError(
                f"DP-SGD cannot protect layer {name!r}, {type(module).__name__}, whose weights "
                f"tell which of them were looked up; leave out max_norm = {module.max_norm}"
            )


@contextmanager
def blaming(key: str, spec: ModelSpec) -> Iterator[None]:
    """Let a refusal say whose model it speaks of, and what the model has in its place.

    Args:
        key: of the configuration, such as `"clients.models[2]"`.
        spec: its value.

    Raises:
        ConfigError: what was refused, with this said.
    """
    try:
        yield
    except ConfigError as error:
        instead = factory.with_group_norm(spec)
        option = "" if instead is None else f": {instead}"
        raise ConfigError(f"{key} is {str(spec)!r}: {error}{option}") from error


def checked_loss(loss: Loss) -> Loss:
    """`loss` with its shape checked always, and once that every value is of its own row alone."""
    tried = False

    def checked(logits: Tensor, y: Tensor) -> Tensor:
        nonlocal tried
        values = loss(logits, y)
        if values.shape != (len(logits),):
            raise ValueError(
                f"the loss of {len(logits)} samples has shape {tuple(values.shape)}: expected one "
                f"value per sample, {(len(logits),)}, not reduced"
            )
        sound = y.reshape(len(y), -1).isfinite().all(dim=1)  # poison would look like coupling
        if not tried and sound.sum() > 1:
            _check_rows(loss, y[sound], tuple(logits.shape[1:]))
            tried = True
        return values

    return checked


def _check_rows(loss: Loss, y: Tensor, answer: tuple[int, ...]) -> None:
    """Refuse a loss whose first value depends on other rows, by its gradient or by its value."""
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(len(y), *answer, generator=draws).to(y.device).requires_grad_()
    together = loss(logits, y)[:1]
    (slope,) = torch.autograd.grad(together.sum(), logits)
    alone = loss(logits[:1], y[:1])
    if slope[1:].nan_to_num().any() or not trial.close(alone, together):
        raise ValueError(
            "the loss of one sample depends on the other samples of its batch: expected a loss per "
            "sample, such as those of fedkd.knowledge.label"
        )


@contextmanager
def _one_line() -> Iterator[None]:
    """Whatever a user's own layer raises, as one line with its remedy."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        reason = trial.first_line(error)
        if "inplace" in reason or "in-place" in reason:  # torch's own words take five lines
            fault = f"it writes into what a layer was given or gave; {_WRITES}"
        else:
            fault = f"{reason}; {trial.PLAIN}"
        raise ConfigError(f"DP-SGD cannot train the model: {fault}") from error
