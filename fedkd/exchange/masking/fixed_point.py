"""Numbers in fixed point, modulo 2^64: only there do masks cancel to the last bit."""

import torch
from torch import Tensor

from fedkd.errors import FederationError
from fedkd.exchange.codec import Expected
from fedkd.exchange.messages import Tensors
from fedkd.specs import TensorSpec

RESOLUTION = 2.0**-24
"""The step of the fixed point; a number loses at most half of it."""
_RANGE = 2.0**28
"""The most that a sum may be, either way. A float64 below it is finer than the fixed point; were it
coarser, the sum's last bits would tell of clients whose numbers are small."""


def expected(plain: Expected) -> Expected:
    """What tensors like these look like once they are masked."""
    return {name: TensorSpec(spec.shape, torch.int64) for name, spec in plain.items()}


def most(parties: int) -> float:
    """The most that a number may be, either way, where as many parties add up."""
    return _RANGE / parties


def fixed(tensors: Tensors, *, parties: int) -> dict[str, Tensor]:
    """Numbers as multiples of `RESOLUTION`, int64.

    Args:
        tensors: any shapes, of integers or float64; a coarser type would show through the sum.
        parties: how many will be added up, each of them within the same bounds.

    Raises:
        ValueError: a tensor is of a coarser type.
        FederationError: a number is not finite, or so large that a sum could leave the range.
    """
    limit, numbers = most(parties), {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float64:
            raise ValueError(f"Expected field {name!r} in float64 to mask it, got {tensor.dtype}.")
        value = tensor.detach().double()
        if not bool((value.abs() <= limit).all()):  # which NaN is not
            raise FederationError(
                f"field {name!r} holds {float(value.abs().max()):g}: secure aggregation over "
                f"{parties} clients carries at most {limit:.3g} either way; scale the numbers "
                "down, or leave out privacy.secure_aggregation"
            )
        numbers[name] = (value / RESOLUTION).round().long()
    return numbers


def carries(number: Tensor, *, parties: int) -> bool:
    """Whether an int64 tensor may be the sum of what `fixed` lets as many parties send.

    What is uniform modulo 2^64, as under a mask, is so by a chance of 1 in 2,000 for each number.
    """
    most_steps = int(_RANGE / RESOLUTION) + parties  # each was rounded by half a step at most
    return bool(((number >= -most_steps) & (number <= most_steps)).all())


def floating(numbers: Tensors) -> dict[str, Tensor]:
    """Fixed point (int64) as float64."""
    return {name: number.double() * RESOLUTION for name, number in numbers.items()}
