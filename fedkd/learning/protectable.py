"""What DP-SGD cannot protect, found before it begins: layers, memory, coupling, wrong gradients.

A model is tried out, so what is found is a fault, and what is not found is no proof: a model may do
on some input what it does on none of those that it is tried out on.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from fedkd.config import ModelSpec
from fedkd.errors import ConfigError
from fedkd.learning.per_sample import Loss, PerSample
from fedkd.models import call, factory, probes
from fedkd.rng import torch_default

_TOLERANCE = 1e-4
_OWN = "build it from torch's plain layers, such as Linear, Conv2d, Embedding and LayerNorm"
_WRITES = "write nothing in place: y = x + 1, not x += 1"
_REMEDY = "normalise each sample alone, such as by torch.nn.GroupNorm"
_TWINS = {
    nn.LSTM: "DPLSTM",
    nn.GRU: "DPGRU",
    nn.RNN: "DPRNN",
    nn.MultiheadAttention: "DPMultiheadAttention",
}
"""Layers without gradients per sample, and what opacus.layers has in place of each."""


def check_model(model: nn.Module, shape: tuple[int, ...], *, like: Tensor | None = None) -> None:
    """Refuse a model whose step one record can move further than its clipped gradient.

    The model is tried out in training mode, in a copy; itself is left as it is. It is asked about
    each input alone, together, in another order and beside extreme neighbours, for logits and for
    gradients. See `fedkd.models.probes` for the inputs.

    Args:
        model: a classifier.
        shape: of one input.
        like: public inputs (N, *shape) that look like the data; None: there are none.

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
    with torch_default(torch.Generator().manual_seed(0)), torch.enable_grad(), _one_line():
        _try_out(copy.deepcopy(model), shape, like)


def check_features(model: nn.Module, shape: tuple[int, ...], *, like: Tensor | None = None) -> None:
    """Refuse a model in whose evaluation mode one record can move another's features.

    Nothing is trained, so frozen statistics, such as a BatchNorm's that was fitted to public data,
    are as good as any other constant.

    Args:
        model: a classifier; it is tried out as in `check_model`, in a copy.
        shape: of one input.
        like: see `check_model`.

    Raises:
        ConfigError: a forward pass changes the model, is random, or lets samples touch each other.
    """
    with _one_line():
        trial = copy.deepcopy(model).eval()
        x, beside = _probes(trial, shape, like)
        _check_memory(trial, x, beside)
        _check_coupling(trial, x, beside)


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
    """Whether all rows are alike, each by its own scale; NaN is like NaN."""
    if a.shape != b.shape:
        return False
    a, b = (each.detach().reshape(len(b), -1) for each in (a, b))
    scale = b.abs().nan_to_num().amax(dim=1, keepdim=True) if b.numel() else b
    scale = torch.where(scale > 0, scale, 1.0)
    return torch.allclose(a / scale, b / scale, rtol=0, atol=_TOLERANCE, equal_nan=True)


@contextmanager
def _one_line() -> Iterator[None]:
    """Whatever a user's own layer raises, as one line with its remedy."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if "inplace" in reason or "in-place" in reason:  # torch's own words take five lines
            fault = f"it writes into what a layer was given or gave; {_WRITES}"
        else:
            fault = f"{reason}; {_OWN}"
        raise ConfigError(f"DP-SGD cannot train the model: {fault}") from error


def _try_out(model: nn.Module, shape: tuple[int, ...], like: Tensor | None) -> None:
    _check_layers(model)
    with _without_dropout(model) as dropouts:
        x, beside = _probes(model, shape, like)
        _check_memory(model, x, beside)
        _check_coupling(model, x, beside)
        _check_gradients(model, x, beside)
    if dropouts:  # Opacus may not be able to differentiate what is random
        with PerSample(model) as per_sample:
            per_sample.gradients(x, x, lambda logits, _: logits.sum(dim=1))


def _probes(
    model: nn.Module, shape: tuple[int, ...], like: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Inputs, and extreme ones to put beside them; a copy is asked, since it may remember."""
    with torch.no_grad():
        x = probes.inputs(copy.deepcopy(model), shape, like)
        return x, probes.neighbours(copy.deepcopy(model), shape)


class _Batch(NamedTuple):
    """The inputs that a model is tried out on, in some company."""

    company: str
    x: Tensor
    places: Tensor
    """Where the inputs stand, in their order."""


def _batches(x: Tensor, beside: Mapping[str, Tensor]) -> list[_Batch]:
    """All inputs together, in another order, and beside neighbours of each kind."""
    places = torch.arange(len(x))
    return [
        _Batch("", x, places),
        _Batch("in another order", x.flip(0), places.flip(0)),
        *(
            _Batch(f"beside samples {what}", torch.cat([x, others]), places)
            for what, others in beside.items()
        ),
    ]


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
        what = f"DP-SGD cannot train layer {name!r}, {type(layer).__name__}"
        lacking = "Opacus has no gradients per sample for it"
        twins = [twin for kind, twin in _TWINS.items() if isinstance(layer, kind)]
        if twins and any(value.requires_grad for value in layer.parameters()):
            raise ConfigError(
                f"{what}: {lacking}; use its twin opacus.layers.{twins[0]}, which has them and "
                "takes the same arguments"
            )
        if not any(value.requires_grad for value in layer.parameters(recurse=False)):
            continue
        try:
            with PerSample(layer):
                pass
        except NotImplementedError as error:
            raise ConfigError(f"{what}: {lacking}; {_OWN}") from error


def _check_memory(model: nn.Module, x: Tensor, beside: Mapping[str, Tensor]) -> None:
    """Refuse a model that forward passes change, or that is random without dropout modules."""
    before = {name: value.detach().clone() for name, value in _tensors(model).items()}
    first = call.answer(copy.deepcopy(model), x)  # nobody was there before
    for others in (*beside.values(), x):
        call.answer(model, others)
    again = call.answer(model, x)
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


def _check_coupling(model: nn.Module, x: Tensor, beside: Mapping[str, Tensor]) -> None:
    """Refuse a model in which a sample's logits depend on another, by gradient or by value."""
    alone = torch.cat([call.answer(model, row) for row in torch.split(x, 1)])
    for company, batch, places in _batches(x, beside):
        entered = batch.clone().requires_grad_()
        said = call.answer(model, entered)
        slope: Tensor | None = None
        if company in ("", "in another order"):  # what is extreme may have no finite gradient
            (slope,) = torch.autograd.grad(said[0].sum(), entered, allow_unused=True)
        if (slope is not None and slope[1:].any()) or not _close(said[places], alone):
            raise _coupled("logits", company)


def _coupled(what: str, company: str) -> ConfigError:
    shown = f" (seen {company})" if company else ""
    return ConfigError(
        f"DP-SGD cannot train a model in which one sample's {what} depend on the other samples of "
        f"its batch{shown}; {_REMEDY}"
    )


def _check_gradients(model: nn.Module, x: Tensor, beside: Mapping[str, Tensor]) -> None:
    """Compare Opacus's gradients per sample with one backward pass per sample."""
    weights = torch.randn(call.answer(model, x).shape[1])

    def value(logits: Tensor, _: Tensor) -> Tensor:
        return (logits * weights).sum(dim=1)

    # Beside the two most extreme alone: gradients per sample take the most of the time.
    batches = _batches(x, dict(list(beside.items())[-2:]))
    with PerSample(model) as per_sample:
        found = [
            [gradient[places] for gradient in per_sample.gradients(batch, batch, value)]
            for _, batch, places in batches
        ]
        names, parameters = zip(*per_sample.parameters.items(), strict=True)
    model.train()
    right = [
        torch.autograd.grad(
            value(call.answer(model, row), row).sum(),
            parameters,
            allow_unused=True,
            materialize_grads=True,
        )
        for row in torch.split(x, 1)
    ]
    for (company, _, _), gradients in zip(batches, found, strict=True):
        for row, wanted in enumerate(right):
            scale = max(gradient.abs().max().item() for gradient in wanted)
            for name, gradient, want in zip(names, gradients, wanted, strict=True):
                alike = gradient.shape == (len(x), *want.shape)
                if alike and (gradient[row] - want).abs().max() <= _TOLERANCE * scale:
                    continue
                if company:
                    raise _coupled("gradients", company)
                raise ConfigError(
                    f"DP-SGD cannot train the model: Opacus gets the gradients of {name!r} per "
                    f"sample wrong; {_OWN}"
                )
