"""Devices: what a configuration names, where a model is, and how one gets there and back.

One rule: data, draws, state dicts, the wire, ledgers and checkpoints are on the CPU. A model visits
a device for as long as it learns or answers; a loop moves each batch to where its model is, and
what comes back is on the CPU. So shuffles, latents and cohorts are the same on every device, and on
the CPU nothing moves at all.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor, nn

from fedkd.errors import ConfigError

CPU = torch.device("cpu")
Precision = Literal["float32", "bfloat16"]
"""In what models compute; parameters, answers, losses and gradients are float32 in any case."""

_PRECISION: ContextVar[Precision] = ContextVar("precision", default="float32")


def resolve(named: str, *, key: str) -> tuple[torch.device, ...]:
    """The devices that a configuration names, all of them there.

    Args:
        named: `"cpu"`; `"auto"`, the first accelerator that torch finds, else the CPU; or one or
            more of a kind: `"cuda"`, `"cuda:1"`, `"cuda:0,cuda:1"`, `"mps"`.
        key: where it stands, such as `"engine.device"`, for errors.

    Raises:
        ConfigError: it names no device, one twice, unlike ones, or one that is not here.
    """
    if named == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return (CPU if found is None else torch.device(found.type, 0),)
    devices = tuple(_device(name.strip(), named, key) for name in named.split(","))
    if len({device.type for device in devices}) > 1 or len(set(devices)) < len(devices):
        raise ConfigError(
            f"{key} is {named!r}: expected devices of one kind, each once, such as 'cuda:0,cuda:1'"
        )
    return devices


def _device(name: str, named: str, key: str) -> torch.device:
    try:
        device = torch.device(name)
        module = torch.get_device_module(device)
    except RuntimeError as error:
        raise ConfigError(
            f"{key} is {named!r}: expected auto, cpu, cuda, cuda:1, cuda:0,cuda:1 or mps"
        ) from error
    if device.type == "cpu":
        return CPU
    number = device.index or 0
    if not module.is_available() or number >= module.device_count():
        there = module.device_count() if module.is_available() else 0
        raise ConfigError(
            f"{key} is {named!r}, and torch {torch.__version__} finds {there} devices of this kind "
            "here: write 'cpu', or 'auto' to take what there is, or install a torch that was "
            "built for it"
        )
    return torch.device(device.type, number)


def check_exact(devices: Sequence[torch.device], precision: Precision, *, key: str) -> None:
    """Refuse what gradients cannot be protected in: they are clipped in float32, summed in float64.

    Raises:
        ConfigError: models compute in less, or a device is of Apple's kind.
    """
    if precision != "float32":
        raise ConfigError(
            f"engine.precision is {precision!r}, and differential privacy clips gradients that are "
            "exact: write 'float32', or leave out [privacy]"
        )
    if any(device.type == "mps" for device in devices):
        raise ConfigError(
            f"{key} is 'mps', which has no float64, and differential privacy sums clipped "
            "gradients in it: write 'cpu', or leave out [privacy]"
        )


def compute_exactly() -> None:
    """Have this process compute in all digits of float32 from now on.

    torch lets convolutions on CUDA round what enters them to TF32, ten bits, unless told otherwise:
    a sum that is clipped by lengths of all digits would be off by a thousandth and more. It is not
    put back, since other threads may rely on it.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


def of(model: nn.Module) -> torch.device:
    """Where a model is: its first parameter's or buffer's device; without any, the CPU."""
    first: Tensor | None = next(model.parameters(), None)
    first = next(model.buffers(), None) if first is None else first
    return CPU if first is None else first.device


def state_dict(model: nn.Module) -> dict[str, Tensor]:
    """A model's state dict on the CPU, where state dicts are; its own tensors if it is there."""
    return {name: tensor.to(CPU) for name, tensor in model.state_dict().items()}


def precision() -> Precision:
    """In what this thread's models compute."""
    return _PRECISION.get()


@contextmanager
def computing(named: Precision) -> Iterator[None]:
    """Have this thread's models compute in a precision as long as the context lasts."""
    before = _PRECISION.set(named)
    try:
        yield
    finally:
        _PRECISION.reset(before)


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """What a model on a device is called in: torch's autocast, or nothing in float32."""
    if precision() == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def widened(tensor: Tensor) -> Tensor:
    """What left a layer in half the bits as float32; all else as it is."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


@contextmanager
def visiting(
    device: torch.device, *models: nn.Module, precision: Precision = "float32"
) -> Iterator[None]:
    """Have models on a device; when the context ends, whichever way, they are where they were.

    Parameters stay the same objects. An optimiser's state does not move with them: build, unpack
    and pack one within a visit.
    """
    with computing(precision), ExitStack() as stack:
        for model in models:
            if (home := of(model)) != device:
                stack.callback(model.to, home)
                model.to(device)
        yield
