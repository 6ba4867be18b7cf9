"""Dropout whose masks nobody knows.

A mask is drawn for a whole batch, so one record more moves the masks of all that come after it. Who
knows the draws, since they follow from a seed, sees the gradients of others move by far more than a
clip. To whoever does not, masks are as good as drawn for each record alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from fedkd import devices
from fedkd.privacy.source import NoiseSource
from fedkd.rng import torch_default


@contextmanager
def drawn_in_secret(model: nn.Module, source: NoiseSource) -> Iterator[None]:
    """Have a model's dropout draw from the operating system as long as the context lasts."""
    layers: list[Any] = [each for each in model.modules() if isinstance(each, _DropoutNd)]
    for layer in layers:
        layer.forward = partial(_forward, layer, source, devices.of(model))
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: nn.Module, source: NoiseSource, device: torch.device, x: Tensor) -> Tensor:
    # The layer takes no generator, so it is lent the global one, whose seeds are 32 bits on the CPU
    # and could be tried out one by one.
    draws = source.generator()
    with torch_default(draws, device):
        torch.default_generator.set_state(draws.get_state())
        found: Tensor = type(layer).forward(layer, x)
        return found
