"""How large and how fast a model is."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from fedkd import devices
from fedkd.models import call

_REPEATS = 30
_SECONDS = 1.0


def measure(model: nn.Module, inputs: Callable[[int], Tensor]) -> dict[str, Any]:
    """Parameters, bytes of weights and buffers, and latency on one thread of the CPU.

    Args:
        model: in evaluation mode.
        inputs: so many empty records, as `Task.blank`.

    Returns:
        `parameters`, `bytes`, and `latency`: the median milliseconds for a batch of 1 and of 100.
    """
    with devices.visiting(devices.CPU, model):
        latency = {str(rows): _latency(model, inputs(rows)) for rows in (1, 100)}
    return {
        "parameters": sum(each.numel() for each in model.parameters()),
        "bytes": sum(each.nbytes for each in model.state_dict().values()),
        "latency": latency,
    }


@torch.inference_mode()
def _latency(model: nn.Module, x: Tensor) -> float:
    call.answer(model, x)  # the first call finds its algorithms
    taken: list[float] = []
    while len(taken) < _REPEATS and sum(taken) < _SECONDS:
        started = time.perf_counter()
        call.answer(model, x)
        taken.append(time.perf_counter() - started)
    return 1000 * median(taken)
