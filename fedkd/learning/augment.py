"""Inputs changed on purpose: how each is seen is drawn anew whenever it is taken for a step.

A change is for training alone, and touches each input by itself, so that it may stand before a
gradient that is clipped record by record. Labels stay what they are; what says where in an image
something is moves along (`Likelihood.moved`). Draws are made on the CPU for
a whole batch at once, so that they are the same on every device and with any number of threads.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fedkd.config import Augmentation, Frozen, validate
from fedkd.errors import ConfigError
from fedkd.learning.moves import Crop, Flip, RandomWindow, cropped, flipped, windowed
from fedkd.names import unknown
from fedkd.rows import Batch, one
from fedkd.tasks import Targets
from fedkd.tasks.motion import Motion

Views = Callable[[Batch, torch.Generator], tuple[Batch, Sequence[Motion]]]
"""Changes, one after the other, of a batch, and how they moved what is in it."""
View = Callable[[Tensor, torch.Generator], Tensor | Motion]
"""Inputs (N, *shape) and the source of all draws to another view of them, or to how they move."""


class Rotate(Frozen):
    """Parameters of `rotated`."""

    degrees: float = Field(default=15.0, gt=0, le=180)
    """The largest angle, either way."""


class Erase(Frozen):
    """Parameters of `erased`."""

    size: int = Field(default=8, ge=1)
    """The square's side, in pixels."""
    probability: float = Field(default=1.0, ge=0, le=1)


class AddedNoise(Frozen):
    """Parameters of `noisy`."""

    std: float = Field(default=0.1, gt=0)
    """The standard deviation, in units of the inputs as the model gets them."""


class Dropout(Frozen):
    """Parameters of `dropped`."""

    probability: float = Field(default=0.5, ge=0, lt=1)
    """With which a number is lost; 0: none is."""


class Strength(Frozen):
    """Parameters of `brightened` and `contrasted`."""

    by: float = Field(default=0.2, gt=0, le=1)
    """The most by which the factor differs from 1."""


def rotated(x: Tensor, generator: torch.Generator, *, degrees: float) -> Tensor:
    """Turn each image (C, H, W) about its centre by an angle drawn evenly from +-`degrees`.

    Bilinear; what comes in is 0.
    """
    if not len(x):  # as a step of DP-SGD may be, and grids of no images are refused
        return x
    height, width = x.shape[2:]
    angles = math.radians(degrees) * (2 * torch.rand(len(x), generator=generator) - 1)
    cos, sin = angles.cos(), angles.sin()
    zero = torch.zeros_like(cos)
    # A grid counts both axes from -1 to 1, however long they are.
    across = torch.stack([cos, -sin * height / width, zero], dim=1)
    along = torch.stack([sin * width / height, cos, zero], dim=1)
    maps = torch.stack([across, along], dim=1).to(x.dtype)
    grid = F.affine_grid(maps, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def erased(x: Tensor, generator: torch.Generator, *, size: int, probability: float) -> Tensor:
    """Set a square of each image (C, H, W) to 0, with this probability.

    Cutout, DeVries & Taylor 2017, arXiv:1708.04552: the square's centre is any pixel, so that part
    of it may lie outside.
    """
    height, width = x.shape[2:]
    chosen = torch.rand(len(x), generator=generator) < probability
    top = torch.randint(height, (len(x), 1), generator=generator) - size // 2
    left = torch.randint(width, (len(x), 1), generator=generator) - size // 2
    rows, columns = torch.arange(height), torch.arange(width)
    down = (rows >= top) & (rows < top + size) & chosen[:, None]
    right = (columns >= left) & (columns < left + size)
    return x.masked_fill((down[:, :, None] & right[:, None, :])[:, None], 0.0)


def noisy(x: Tensor, generator: torch.Generator, *, std: float) -> Tensor:
    """Add Gaussian noise of standard deviation `std`; for inputs of any shape."""
    return x + std * torch.randn(x.shape, generator=generator)


def dropped(x: Tensor, generator: torch.Generator, *, probability: float) -> Tensor:
    """Set each number of an input to 0, with this probability; for inputs of any shape.

    The others stay as they are. Of a history of items it hides some, which are then to be found:
    the denoising of Vincent et al. 2008, ICML, in Mult-DAE's use, Liang et al. 2018,
    arXiv:1802.05814.
    """
    return x.masked_fill(torch.rand(x.shape, generator=generator) < probability, 0.0)


def brightened(x: Tensor, generator: torch.Generator, *, by: float) -> Tensor:
    """Multiply each input by a factor drawn evenly from 1 +- `by`; for inputs of any shape."""
    return x * _beside(_factors(x, generator, by), x)


def contrasted(x: Tensor, generator: torch.Generator, *, by: float) -> Tensor:
    """As `brightened`, the distance of each image's pixels (C, H, W) from their mean."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (x - mean) * _beside(_factors(x, generator, by), x)


@dataclass(frozen=True)
class Change:
    """A change by name.

    Attributes:
        apply: inputs, a generator and the parameters as keywords to a view, or to how it moves.
        Params: its parameters.
        images: whether inputs must be images (C, H, W).
        moves: whether what is in an image comes to stand in another place, or may be lost.
        along: whether it is a motion, along which targets can move.
        resizes: whether images come out in another size.
    """

    apply: Callable[..., Tensor | Motion]
    Params: type[Frozen]
    images: bool = True
    moves: bool = False
    along: bool = False
    resizes: bool = False


BUILT_IN: dict[str, Change] = {
    "crop": Change(cropped, Crop, moves=True, along=True),
    "flip": Change(flipped, Flip, moves=True, along=True),
    "window": Change(windowed, RandomWindow, moves=True, along=True, resizes=True),
    "rotate": Change(rotated, Rotate, moves=True),
    "erase": Change(erased, Erase, moves=True),
    "noise": Change(noisy, AddedNoise, images=False),
    "dropout": Change(dropped, Dropout, images=False),
    "brightness": Change(brightened, Strength, images=False),
    "contrast": Change(contrasted, Strength),
}


def build(choices: Sequence[Augmentation], *, key: str = "augment") -> Views:
    """One view that makes all changes in their order; without any, inputs as they are.

    With it come the motions in their order, which targets may follow.

    Args:
        choices: by name, with their parameters.
        key: where the configuration says them.

    Raises:
        ConfigError: a change or a parameter is unknown, or wrong.
    """
    changes = [_change(choice, f"{key}[{number}]") for number, choice in enumerate(choices)]

    def view(x: Batch, generator: torch.Generator) -> tuple[Batch, Sequence[Motion]]:
        motions = []
        for change in changes:
            made = change(one(x), generator)
            if isinstance(made, Motion):
                motions.append(made)
                made = made.of_images(one(x))
            x = made
        return x, motions

    return view


def check(
    choices: Sequence[Augmentation],
    shape: tuple[int, ...],
    targets: Targets,
    *,
    key: str,
    along: bool = False,
) -> None:
    """Refuse changes that do not suit the records, and histories of which nothing is hidden.

    Args:
        choices: see `build`.
        shape: of one input.
        targets: of the task; all but classes and labels may be places in an image, which would have
            to move with it.
        key: see `build`.
        along: whether targets move along.

    Raises:
        ConfigError: see `build`; or a change does not suit.
    """
    build(choices, key=key)
    if targets == "items" and "dropout" not in [choice.name for choice in choices]:
        raise ConfigError(
            f"{key} hides nothing of users' histories, so that no item is left to be found: say "
            "[{ name = 'dropout', probability = 0.5 }], or 0 where inputs lack items of the targets"
        )
    fixed = targets in ("classes", "identities", "binary")
    fit = [
        name
        for name, change in BUILT_IN.items()
        if len(shape) == 3 or not change.images
        if fixed or not change.moves or (change.along and along)
        if targets == "masks" or not change.resizes
    ]
    for number, choice in enumerate(choices):
        if choice.name not in fit:
            reason = (
                f"is for images (C, H, W), and inputs have shape {shape}"
                if len(shape) != 3
                else "gives images of another size, which is for masks"
                if fixed or BUILT_IN[choice.name].resizes
                else f"moves what is in an image, and targets ({targets}) would have to move too"
            )
            raise ConfigError(
                f"{key}[{number}] is {choice.name!r}: it {reason}; choose among {', '.join(fit)}, "
                "or leave it out"
            )
        if BUILT_IN[choice.name].resizes:
            size = _params(choice, f"{key}[{number}]")["size"]
            if size > min(shape[1:]):
                raise ConfigError(
                    f"{key}[{number}].size is {size}, and images are {shape[1]}x{shape[2]}: "
                    "expected at most their smaller side"
                )


def _change(choice: Augmentation, key: str) -> View:
    if choice.name not in BUILT_IN:
        raise ConfigError(f"{key}: {unknown('change of inputs', choice.name, BUILT_IN)}")
    return partial(BUILT_IN[choice.name].apply, **_params(choice, key))


def _params(choice: Augmentation, key: str) -> dict[str, Any]:
    params = validate(BUILT_IN[choice.name].Params, choice.parameters, prefix=f"{key}.")
    return params.model_dump()


def _factors(x: Tensor, generator: torch.Generator, by: float) -> Tensor:
    return 1 + by * (2 * torch.rand(len(x), generator=generator) - 1)


def _beside(each: Tensor, x: Tensor) -> Tensor:
    """One value per input, (N,), shaped so that it goes with all of that input's numbers."""
    return each.reshape(-1, *[1] * (x.dim() - 1))
