"""The grid that what is released stands on: see `mechanisms`."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fedkd.privacy.ziggurat import Floats

FINENESS = 2.0**-14
"""What rounding to the grid may add to a sensitivity, as a share of it, where any step will do."""
_AT_ONCE = 2**18
"""Numbers that get their noise together."""
_IN_CACHE = 2**14
"""Numbers that are put on a grid together, while they stay in a core's cache."""
_MOST_STEPS = 2.0**52
"""The most steps that a value may be; with the noise they are exact in float64."""


def step_of(sensitivity: float, norm: float) -> float:
    """The grid's step: a power of two by which rounding adds next to nothing to the sensitivity.

    Args:
        sensitivity: finite, > 0.
        norm: of a release in which every number is 1, as the sensitivity measures it.
    """
    return 2.0 ** math.floor(math.log2(FINENESS * sensitivity / max(norm, 1.0)))


def evenly(scale: float, value: Tensor) -> Floats:
    """One scale for all numbers of a value, without a copy of it for each."""
    return np.broadcast_to(np.float64(scale), value.numel())


def on_grid(value: Tensor, step: float, draw: Callable[[Floats], Floats], scales: Floats) -> Tensor:
    """`value` rounded to multiples of `step`, with as many steps of noise as are drawn.

    Args:
        value: any shape.
        step: a power of two.
        draw: of the noise, in steps.
        scales: of the noise, in steps, one for each number.
    """
    known = value.dtype in {torch.float32, torch.float64}
    given = value.detach().to("cpu", value.dtype if known else torch.float64).flatten().numpy()
    released, held = np.empty_like(given), np.empty(min(_IN_CACHE, len(given)))
    for start in range(0, len(given), _AT_ONCE):
        noise = draw(scales[start : start + _AT_ONCE])
        for place in range(start, start + len(noise), _IN_CACHE):
            some = slice(place, min(place + _IN_CACHE, start + len(noise)))
            part = held[: some.stop - place]
            with np.errstate(over="ignore"):
                np.divide(given[some], step, out=part, dtype=np.float64)
                if not max(part.max(), -part.min()) <= _MOST_STEPS / 2:  # or one is NaN
                    # Held in a range, which moves no two values apart, whatever the data.
                    np.nan_to_num(part, copy=False, nan=0.0)
                    np.clip(part, -_MOST_STEPS / 2, _MOST_STEPS / 2, out=part)
                np.rint(part, out=part)
                part += 0.0  # -0.0 comes of negative values alone, and -0.0 of noise would keep it
                part += noise[place - start :][: len(part)]
                np.multiply(part, step, out=released[some], casting="same_kind")
    noisy = torch.from_numpy(released).view(value.shape).to(value.device)
    return noisy.to(value.dtype) if value.is_floating_point() else noisy
