"""A device `fake` that computes on the CPU and refuses every operation between it and the CPU.

What real accelerators refuse: an operation on tensors of theirs and of the CPU, but for copies and
for numbers without an axis. It is stricter in one thing: rows of theirs are not picked by numbers
on the CPU. Importing this file changes torch for the whole process.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as trees
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

aten = torch.ops.aten
COUNT = 2
"""How many there are."""
DONE: Counter[str] = Counter()
"""How many operations each has done."""


class MixedDevicesError(RuntimeError):
    """An operation between the device and the CPU."""


class Backend(_DummyBackendModule):  # type: ignore[misc]  # torch's has no types
    """What torch asks of a device's module."""

    seeds: ClassVar[list[int]] = [0] * COUNT

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return COUNT

    def manual_seed(self, seed: int) -> None:
        self.seeds[0] = seed  # a device of torch's own would take the current one

    def get_rng_state(self, device: int) -> Tensor:
        return torch.tensor(self.seeds[device])

    def set_rng_state(self, state: Tensor, device: int) -> None:
        self.seeds[device] = int(state)


class OnDevice(Tensor):
    """A tensor of the device, around one of the CPU."""

    inner: Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, inner: Tensor, place: torch.device) -> "OnDevice":
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=place,
        )
        made.inner, made.place = inner, place
        return made

    def __init__(self, *_: object) -> None: ...

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, _types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        return _run(function, arguments, keywords or {})


def _run(function: Any, arguments: Any, keywords: dict[str, Any]) -> Any:
    if function is aten.copy_.default:
        _inner(arguments[0]).copy_(_inner(arguments[1]))
        return arguments[0]
    if function is aten._to_copy.default:
        aim = torch.device(keywords.get("device") or arguments[0].device)
        copied = function(_inner(arguments[0]), **{**keywords, "device": "cpu"})
        return copied if aim.type == "cpu" else OnDevice(copied, _whole(aim))
    given = [each for each in trees.tree_leaves((arguments, keywords)) if isinstance(each, Tensor)]
    places = {str(each.device) for each in given if each.dim() or isinstance(each, OnDevice)}
    if len(places) > 1:
        shapes = ", ".join(f"{tuple(each.shape)} on {each.device}" for each in given)
        raise MixedDevicesError(f"{function} of {shapes}")
    place = next(each.place for each in given if isinstance(each, OnDevice))
    to = torch.device(keywords.get("device") or place)
    # What an operation writes into and returns must come back as the tensor that it was.
    known = {id(each.inner): each for each in given if isinstance(each, OnDevice)}
    arguments, keywords = trees.tree_map(_unwrapped, (arguments, keywords))
    found = function(*arguments, **keywords)
    DONE[str(place)] += 1

    def wrapped(value: Any) -> Any:
        if not _plain(value) or to.type == "cpu":
            return value
        return known[id(value)] if id(value) in known else OnDevice(value, _whole(to))

    return trees.tree_map(wrapped, found)


def _inner(tensor: Tensor) -> Tensor:
    return tensor.inner if isinstance(tensor, OnDevice) else tensor


def _unwrapped(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return _inner(value) if isinstance(value, Tensor) else value


def _plain(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, OnDevice)


def _whole(device: torch.device | None) -> torch.device:
    return torch.device("fake", 0 if device is None else device.index or 0)


def _empty(
    size: Any,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
    memory_format: Any = None,
) -> Tensor:
    how = memory_format or torch.contiguous_format
    return OnDevice(torch.empty(size, dtype=dtype, memory_format=how), _whole(device))


def _empty_strided(
    size: Any,
    stride: Any,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> Tensor:
    return OnDevice(torch.empty_strided(size, stride, dtype=dtype), _whole(device))


def _copy_from(source: Tensor, aim: Tensor, non_blocking: Any = False) -> Tensor:
    _inner(aim).copy_(_inner(source))
    return aim


THREADS: list[bool] = []
"""Not empty while autograd has its own threads."""


@contextmanager
def threads_of_autograd() -> Iterator[None]:
    """Let autograd have a thread of its own for the device, as it has for accelerators."""
    THREADS.append(True)
    try:
        yield
    finally:
        THREADS.clear()


def _install() -> torch.library.Library:
    _setup_privateuseone_for_python_backend("fake", backend_module=Backend())
    made = torch.library.Library("aten", "IMPL")
    made.impl("empty.memory_format", _empty, "PrivateUse1")
    made.impl("empty_strided", _empty_strided, "PrivateUse1")
    made.impl("_copy_from", _copy_from, "PrivateUse1")
    # Parameters stay the same objects when their module moves, as they do on real devices.
    torch.__future__.set_swap_module_params_on_conversion(True)
    run = torch.autograd._engine_run_backward

    def in_this_thread(*arguments: Any, **keywords: Any) -> Any:
        # The engine's own thread for a device waits for ever for Python's lock now and then.
        if THREADS:
            return run(*arguments, **keywords)
        with torch.autograd.set_multithreading_enabled(False):
            return run(*arguments, **keywords)

    torch.autograd._engine_run_backward = in_this_thread
    return made


LIBRARY = _install()
