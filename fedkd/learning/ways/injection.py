"""Module injection: a block of the teacher works inside the student.

The student's own layer gives way to `enter -> block -> leave`, or is followed by it; `enter` and
`leave` are learned 1x1 convolutions (linear layers for rows) that fit widths and sizes. What comes
out is a module of its own, with nothing of the teacher left outside of it. A parameter form of
knowledge; compare Xu et al. 2020, arXiv:2002.02925, where a student's modules replace a teacher's.
"""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from fedkd.learning.forms import adapters
from fedkd.learning.ways.base import FromLabels
from fedkd.models.layers import inspect_layers

Place = Literal["replace", "after"]


class Injection(FromLabels):
    """Parameters of `injection`."""

    layer: str
    """The student's layer that gives way to the block, or that the block follows."""
    block: str
    """The teacher's block: the dotted name of a layer."""
    place: Place = "replace"
    trainable: bool = False
    """Whether the block learns too; else it stays as the teacher has it."""


class Injected(nn.Module):
    """A teacher's block between two adapters; a fixed block stays in evaluation mode.

    Features as they enter the student's layer (or leave it, if the block follows it) to features of
    the shape that the student's layer gives.
    """

    def __init__(
        self, enter: nn.Module, block: nn.Module, leave: nn.Module, *, trainable: bool
    ) -> None:
        super().__init__()
        self.enter, self.block, self.leave = enter, block, leave
        self.trainable = trainable
        block.requires_grad_(requires_grad=trainable)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.leave(self.block(self.enter(x)))
        return out

    def train(self, mode: bool = True) -> "Injected":  # noqa: FBT001, FBT002 - torch's
        """As every module's, but for a fixed block: its BatchNorm would learn from the batches."""
        super().train(mode)
        if not self.trainable:
            self.block.eval()
        return self


def inject(
    student: nn.Module,
    teacher: nn.Module,
    shape: tuple[int, ...],
    generator: torch.Generator,
    *,
    layer: str,
    block: str,
    place: Place = "replace",
    trainable: bool = False,
) -> nn.Module:
    """Put a copy of a teacher's block into a student.

    Args:
        student: changed in place, and returned.
        teacher: left as it is.
        shape: of one input.
        generator: determines the adapters' initial weights.
        layer: the student's layer that gives way, or that the block follows.
        block: the teacher's block.
        place: `replace` or `after`.
        trainable: whether the block learns too.

    Raises:
        ConfigError: there is no such layer or block, or it has not one tensor in and one out.
    """
    ours, theirs = inspect_layers(student, shape), inspect_layers(teacher, shape)
    given, asked = theirs.shape(block), theirs.entered(block)
    out = ours.shape(layer)
    into = out if place == "after" else ours.entered(layer)
    injected = Injected(
        adapters.fit(into, asked, generator),
        copy.deepcopy(teacher.get_submodule(block)),
        adapters.fit(given, out, generator),
        trainable=trainable,
    )
    own = student.get_submodule(layer)
    parent, _, name = layer.rpartition(".")
    setattr(
        student.get_submodule(parent),
        name,
        injected if place == "replace" else nn.Sequential(own, injected),
    )
    return student.train()
