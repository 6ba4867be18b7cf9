"""What DP-SGD cannot protect, found before it begins: layers, memory, coupling, wrong gradients."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from fedkd.errors import ConfigError
from fedkd.learning.per_sample import Loss, PerSample
from fedkd.rng import torch_default

_PROBES = 3
_TOLERANCE = 1e-4
_OWN = "build it from torch's plain layers, such as Linear, Conv2d, GroupNorm and LayerNorm"
_REMEDY = "normalise with group norm: { name = 'resnet8', norm = 'group' }"


def check_model(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Refuse a model whose step one record can move further than its clipped gradient.

    The model is tried out on random inputs, in a copy; itself is left as it is.

    Args:
        model: a classifier.
        shape: of one input.

    Raises:
        ConfigError: the model normalises by batch or running statistics, keeps something of its
            inputs, lets samples touch each other, has random parts that are no dropout module, has
            nothing to train, or Opacus gets the gradients of its samples wrong.
    """
    for name, module in model.named_modules():
        running = isinstance(module, _InstanceNorm) and module.track_running_stats
        if isinstance(module, _BatchNorm) or running:
            raise ConfigError(
                f"DP-SGD cannot train layer {name!r}, {type(module).__name__}, which keeps or "
                f"shares statistics of the samples, even when frozen; {_REMEDY}"
            )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("DP-SGD needs a model with a parameter that requires gradients")
    trial = copy.deepcopy(model)
    with torch_default(torch.Generator().manual_seed(0)), torch.enable_grad():
        try:
            _try_out(trial, torch.randn(_PROBES, *shape))
        except ConfigError:
            raise
        except Exception as error:  # whatever a user's own layer raises
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ConfigError(f"DP-SGD cannot train the model: {reason}; {_OWN}") from error


def check_features(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Refuse a model in whose evaluation mode one record can move another's features.

    Nothing is trained, so frozen statistics, such as a BatchNorm's that was fitted to public data,
    are as good as any other constant.

    Args:
        model: a classifier; it is tried out on random inputs, in a copy.
        shape: of one input.

    Raises:
        ConfigError: a forward pass changes the model, is random, or lets samples touch each other.
    """
    trial = copy.deepcopy(model).eval()
    x = torch.randn(_PROBES, *shape, generator=torch.Generator().manual_seed(0))
    _check_memory(trial, x)
    _check_coupling(trial, x)


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
            _check_rows(loss, y[sound], logits.shape[1])
            tried = True
        return values

    return checked


def _check_rows(loss: Loss, y: Tensor, classes: int) -> None:
    """Refuse a loss whose first value depends on other rows, by its gradient or by its value."""
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(len(y), classes, generator=draws).requires_grad_()
    together = loss(logits, y)[:1]
    (slope,) = torch.autograd.grad(together.sum(), logits)
    alone = loss(logits[:1], y[:1])
    if slope[1:].nan_to_num().any() or not _close(alone, together):
        raise ValueError(
            "the loss of one sample depends on the other samples of its batch: expected a loss per "
            "sample, such as those of fedkd.knowledge.label"
        )


def _close(a: Tensor, b: Tensor) -> bool:
    scale = b.detach().abs().amax().nan_to_num().item() if b.numel() else 0.0
    return a.shape == b.shape and torch.allclose(
        a, b, rtol=_TOLERANCE, atol=_TOLERANCE * scale, equal_nan=True
    )


def _try_out(model: nn.Module, x: Tensor) -> None:
    _check_layers(model)
    with _without_dropout(model) as dropouts:
        _check_memory(model, x)
        _check_coupling(model, x)
        _check_gradients(model, x)
    if dropouts:  # Opacus may not be able to differentiate what is random
        with PerSample(model) as per_sample:
            per_sample.gradients(x, x, lambda logits, _: logits.sum(dim=1))


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[list[nn.Module]]:
    """Training mode in which the dropout modules, which come out, do nothing."""
    dropouts = [module for module in model.modules() if isinstance(module, _DropoutNd)]
    rates = [module.p for module in dropouts]
    for module in dropouts:
        module.p = 0.0
    model.train()
    yield list(dropouts)
    for module, rate in zip(dropouts, rates, strict=True):
        module.p = rate


def _check_layers(model: nn.Module) -> None:
    """Let Opacus try each layer alone, so that the error can name it."""
    for name, layer in model.named_modules():
        if not any(value.requires_grad for value in layer.parameters(recurse=False)):
            continue
        try:
            with PerSample(layer):
                pass
        except NotImplementedError as error:
            raise ConfigError(
                f"DP-SGD cannot train layer {name!r}, {type(layer).__name__}: Opacus has no "
                f"gradients per sample for it; {_OWN}"
            ) from error


def _check_memory(model: nn.Module, x: Tensor) -> None:
    """Refuse a model that forward passes change, or that is random without dropout modules."""
    before = {name: value.detach().clone() for name, value in _tensors(model).items()}
    first = model(x)
    model(3 * x + 1)
    again = model(x)
    for name, value in _tensors(model).items():
        if name not in before or not torch.equal(value, before[name]):
            raise ConfigError(
                f"DP-SGD cannot protect {name!r}, which the model's forward pass changes; {_REMEDY}"
            )
    if not torch.equal(first, again):
        raise ConfigError(
            "DP-SGD cannot train a model whose logits for one input differ from call to call: "
            "expected no memory, and nothing random but torch.nn.Dropout and its kin"
        )


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _check_coupling(model: nn.Module, x: Tensor) -> None:
    """Refuse a model in which a sample's logits depend on another, by gradient or by value."""
    x = x.clone().requires_grad_()
    together = model(x)
    slope: Tensor | None
    (slope,) = torch.autograd.grad(together[0].sum(), x, allow_unused=True)
    alone = torch.cat([model(row) for row in torch.split(x, 1)])
    if (slope is not None and slope[1:].any()) or not _close(alone, together):
        raise ConfigError(
            "DP-SGD cannot train a model in which one sample's logits depend on the other samples "
            f"of its batch; {_REMEDY}"
        )


def _check_gradients(model: nn.Module, x: Tensor) -> None:
    """Compare Opacus's gradients per sample with one backward pass per sample."""
    weights = torch.randn(model(x).shape[1])
    with PerSample(model) as per_sample:
        found = per_sample.gradients(x, x, lambda logits, _: (logits * weights).sum(dim=1))
        names, parameters = zip(*per_sample.parameters.items(), strict=True)
    model.train()
    for row, sample in enumerate(torch.split(x, 1)):
        value = (model(sample) * weights).sum()
        right = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        scale = max(gradient.abs().max().item() for gradient in right)
        for name, gradient, want in zip(names, found, right, strict=True):
            alike = gradient.shape == (len(x), *want.shape)
            if not (alike and (gradient[row] - want).abs().max() <= _TOLERANCE * scale):
                raise ConfigError(
                    f"DP-SGD cannot train the model: Opacus gets the gradients of {name!r} per "
                    f"sample wrong; {_OWN}"
                )
