"""Numbers in fixed point, modulo 2^64: only there do masks cancel to the last bit.

Or modulo 2^16, where all that a client sends are whole numbers of 16 bits (int16): so a sum with
noise on it is sent in a quarter of the bytes. They wrap around; a sum inside the range does not.
"""

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


SHORT_RANGE = 2**14
"""The most that a sum of whole numbers of 16 bits may be, half of what these bits hold."""


def expected(plain: Expected) -> Expected:
    """What tensors like these look like once they are masked: all of one type of integers."""
    short = all(spec.dtype == torch.int16 for spec in plain.values())
    word = torch.int16 if short else torch.int64
    return {name: TensorSpec(spec.shape, word) for name, spec in plain.items()}


def ones(word: torch.dtype) -> Tensor:
    """What each client adds beside, to tell that all masks came off: 64 bits of ones, as numbers.

    Args:
        word: int64, or int16.
    """
    return torch.ones((4,) if word == torch.int16 else (), dtype=word)


def most(parties: int) -> float:
    """The most that a number may be, either way, where as many parties add up."""
    return _RANGE / parties


def fixed(tensors: Tensors, *, parties: int) -> dict[str, Tensor]:
    """Numbers as multiples of `RESOLUTION`, int64.

    Args:
        tensors: any shapes, of integers or float64; a coarser type would show through the sum.
            Whole numbers of 16 bits, int16, stay as they are.
        parties: how many will be added up, each of them within the same bounds.

    Raises:
        ValueError: a tensor is of a coarser type.
        FederationError: a number is not finite, or so large that a sum could leave the range.
    """
    limit, numbers = most(parties), {}
    if all(tensor.dtype == torch.int16 for tensor in tensors.values()):
        return dict(tensors)
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
    """Whether integers may be the sum of what `fixed` lets as many parties send.

    What is uniform modulo 2^64, as under a mask, is so by a chance of 1 in 2,000 for each number;
    modulo 2^16 by one half.
    """
    if number.dtype == torch.int16:
        return bool(((number >= -SHORT_RANGE) & (number <= SHORT_RANGE)).all())
    most_steps = int(_RANGE / RESOLUTION) + parties  # each was rounded by half a step at most
    return bool(((number >= -most_steps) & (number <= most_steps)).all())


def floating(numbers: Tensors) -> dict[str, Tensor]:
    """Fixed point (int64) as float64; whole numbers (int16) as these."""
    return {
        name: number.double() * (1.0 if number.dtype == torch.int16 else RESOLUTION)
        for name, number in numbers.items()
    }
