"""A model tried out in the ways by which one record could touch another: see `protectable`."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from fedkd.errors import ConfigError
from fedkd.learning.dp.per_sample import PerSample, at_once, has_rule
from fedkd.models import call, probes
from fedkd.rows import Rows

PLAIN = "build it from torch's plain layers, such as Linear, Conv2d, Embedding and LayerNorm"
ALONE = "normalise each sample alone, such as by torch.nn.GroupNorm"
_TOLERANCE = 1e-4
_MANY = 32  # rows: a size at which many a model does something else
_TWIN = "its twin opacus.layers.{}, which has them and takes the same arguments"
_INSTEAD = {
    nn.LSTM: _TWIN.format("DPLSTM"),
    nn.GRU: _TWIN.format("DPGRU"),
    nn.RNN: _TWIN.format("DPRNN"),
    nn.MultiheadAttention: _TWIN.format("DPMultiheadAttention"),
    nn.RNNCellBase: "opacus.layers.DPLSTM, DPGRU or DPRNN on the whole sequence",
    nn.EmbeddingBag: "torch.nn.Embedding, and the mean or the sum of what it gives",
}
"""Layers without gradients per sample, and what to use in place of each."""


def learning(model: nn.Module, shape: tuple[int, ...], like: Rows | None) -> None:
    """Try a model in training mode; it is used up.

    Args:
        model: of which a copy is kept elsewhere.
        shape: of one input.
        like: see `probes.inputs`.

    Raises:
        ConfigError: DP-SGD cannot protect its records from each other.
        Exception: what its own layers raise.
    """
    _check_layers(model)
    with _without_dropout(model) as dropouts:
        x, beside = _probes(model, shape, like)
        _check_memory(model, x, beside)
        _check_coupling(model, x, beside)
        _check_gradients(model, x, beside)
    if dropouts:  # vmap may not be able to differentiate what is random
        with PerSample(model) as per_sample:
            per_sample.gradients(x, x, lambda said, _: said.flatten(1).sum(dim=1))


def answering(model: nn.Module, shape: tuple[int, ...], like: Rows | None) -> None:
    """Try a model in evaluation mode, in which nobody learns; the rest is as in `learning`."""
    x, beside = _probes(model, shape, like)
    _check_memory(model, x, beside)
    _check_coupling(model, x, beside)


def close(a: Tensor, b: Tensor, *, within: float = _TOLERANCE) -> bool:
    """Whether all rows are alike, each by its own scale; NaN is like NaN."""
    if a.shape != b.shape:
        return False
    a, b = (each.detach().reshape(len(b), -1) for each in (a, b))
    scale = b.abs().nan_to_num().amax(dim=1, keepdim=True) if b.numel() else b
    scale = torch.where(scale > 0, scale, 1.0)
    return torch.allclose(a / scale, b / scale, rtol=0, atol=within, equal_nan=True)


def first_line(error: Exception) -> str:
    """What an exception says, or its kind where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _probes(
    model: nn.Module, shape: tuple[int, ...], like: Rows | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Inputs, and extreme ones to put beside them; a copy is asked, since it may remember.

    Raises:
        ConfigError: the model does not take them.
    """
    with torch.no_grad():
        try:
            x = probes.inputs(copy.deepcopy(model), shape, like)
        except Exception as error:  # whatever a user's own layer raises
            tried = "from N(0, 1), nor of 0 and 1" if like is None else "like the public ones"
            raise ConfigError(
                f"DP-SGD cannot train the model: {first_line(error)}; it takes no inputs {shape} "
                f"{tried}, by which it is tried out: expected a model of such inputs"
            ) from error
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


def _long(model: nn.Module, x: Tensor) -> list[_Batch]:
    """The inputs in batches of more rows, the most that a step takes at once among them."""
    trained = (value for value in model.parameters() if value.requires_grad)
    sizes = sorted({_MANY, at_once(trained)})
    return [
        _Batch(
            f"in a batch of {size}",
            x.repeat(-(-size // len(x)), *[1] * (x.ndim - 1))[:size],
            torch.arange(min(size, len(x))),
        )
        for size in sizes
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
    """Try each layer alone, so that the error can name it."""
    for name, layer in model.named_modules():
        what = f"DP-SGD cannot train layer {name!r}, {type(layer).__name__}"
        lacking = "there are no gradients per sample for it"
        instead = next((each for kind, each in _INSTEAD.items() if isinstance(layer, kind)), None)
        if has_rule(layer):
            continue
        if instead and any(value.requires_grad for value in layer.parameters()):
            raise ConfigError(f"{what}: {lacking}; use {instead}")
        if not any(value.requires_grad for value in layer.parameters(recurse=False)):
            continue
        try:
            with PerSample(layer):
                pass
        except NotImplementedError as error:
            raise ConfigError(f"{what}: {lacking}; {PLAIN}") from error


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
                f"DP-SGD cannot protect {name!r}, which the model's forward pass changes; {ALONE}"
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
    for company, batch, places in [*_batches(x, beside), *_long(model, x)]:
        entered = batch.clone().requires_grad_()
        said = call.answer(model, entered)
        slope: Tensor | None = None
        if company in ("", "in another order"):  # what is extreme may have no finite gradient
            (slope,) = torch.autograd.grad(said[0].sum(), entered, allow_unused=True)
        reached = slope is not None and bool(slope[1:].any())
        alike = close(said[places], alone[: len(places)])
        if reached or not (alike or _alike_in_float64(model, batch, places)):
            raise _coupled("logits", company)


def _alike_in_float64(model: nn.Module, batch: Tensor, places: Tensor) -> bool:
    """Whether samples' logits are alone as in their batch, but for the rounding of float32.

    Of a sum of thousands of numbers that cancel, float32 leaves few digits, and other ones in a
    batch. A model that takes no float64 is not alike.
    """
    exact, wide = copy.deepcopy(model).double(), batch.detach().double()
    try:
        together = call.answer(exact, wide)[places]
        alone = torch.cat([call.answer(exact, row) for row in torch.split(wide[places], 1)])
    except RuntimeError:
        return False
    return close(together, alone, within=1e-6)


def _coupled(what: str, company: str) -> ConfigError:
    shown = f" (seen {company})" if company else ""
    return ConfigError(
        f"DP-SGD cannot train a model in which one sample's {what} depend on the other samples of "
        f"its batch{shown}; {ALONE}"
    )


def _check_gradients(model: nn.Module, x: Tensor, beside: Mapping[str, Tensor]) -> None:
    """Compare the gradients per sample with one backward pass per sample."""
    weights = torch.randn(call.answer(model, x).shape[1:])

    def value(said: Tensor, _: Tensor) -> Tensor:
        return (said * weights).flatten(1).sum(dim=1)

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
                    f"DP-SGD cannot train the model: the gradients of {name!r} per sample come out "
                    f"wrong; {PLAIN}"
                )
